"""Encodes JSON and JSONL: every row an object, with JSON cells spliced in as they are."""

import itertools
import json
from collections.abc import Container, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.encode.cells import found, holds_json, in_one_piece, iso, json_text, own, positional, unescaped
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.slices import sized
from pipeline.encode.sparse import Template, texts_of
from pipeline.types import CELLS, Column, Kind

_SLICE = 6 << 20
_SPLICED = {Kind.JSON, Kind.MAYBE_JSON, Kind.DECIMAL}


def encode_jsonl(
    columns: Sequence[Column],
    batches: Iterator[pa.RecordBatch],
    options: EncodeOptions,  # noqa: ARG001 (every Encode has it)
) -> Iterator[Chunk]:
    """Yield one JSON object a line, keys in the order of the columns; no rows make no bytes.

    Cells that hold JSON are JSON values, decimals are numbers with all their digits; null, NaN and the infinities are
    null.
    """
    fixed, template = _split(columns)
    for table in sized(batches, _SLICE, len(template.text)):
        yield _objects(table, fixed, template, "", "\n")


def encode_json(
    columns: Sequence[Column],
    batches: Iterator[pa.RecordBatch],
    options: EncodeOptions,  # noqa: ARG001 (every Encode has it)
) -> Iterator[Chunk]:
    """Yield one JSON array of the objects that `encode_jsonl` writes, each on a line; `[]` without rows."""
    yield b"["
    comma = 1
    fixed, template = _split(columns)
    for table in sized(batches, _SLICE, len(template.text)):
        yield _objects(table, fixed, template, ",\n", "")[comma:]
        comma = 0
    yield b"]\n" if comma else b"\n]\n"


def _split(columns: Sequence[Column]) -> tuple[list[Column], Template]:
    fixed = own(columns)
    return fixed, Template([f",{_name(column)}:" for column in columns[len(fixed) :]], "null")


def _name(column: Column) -> str:
    return json.dumps(column.name, ensure_ascii=False)


def _objects(table: pa.Table, columns: Sequence[Column], template: Template, before: str, after: str) -> memoryview:
    """Return the rows as JSON objects in one buffer, each between `before` and `after`."""
    frame = positional(table, columns)
    masks = found(frame, columns, _checks(columns))
    row = [pl.lit(before + "{"), *_pairs(table, columns, masks)]
    if template.columns:
        cells = table[CELLS].combine_chunks()
        row.append(pl.lit(template.tails(cells, texts_of(cells))))
    rows = frame.with_columns(unescaped(frame, masks)).select(pl.concat_str(*row, pl.lit("}" + after)))
    return in_one_piece(rows.to_series())


def _checks(columns: Sequence[Column]) -> dict[str, pl.Expr]:
    """Name the JSON columns that have a raw line break in a cell."""
    return {
        str(place): pl.col(str(place)).str.contains(r"[\r\n]")
        for place, column in enumerate(columns)
        if column.kind in {Kind.JSON, Kind.MAYBE_JSON}
    }


def _pairs(table: pa.Table, columns: Sequence[Column], folded: Container[str]) -> Iterator[pl.Expr]:
    """Yield the text of each `"name":value`; neighbours that polars can write are written together, which is faster."""
    comma = ""
    for spliced, run in itertools.groupby(enumerate(columns), lambda pair: pair[1].kind in _SPLICED):
        if not spliced:
            fields = [_field(table, column, str(place)) for place, column in run]
            yield pl.lit(comma)
            yield pl.struct(fields).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
            comma = ","
            continue
        for place, column in run:
            yield pl.lit(f"{comma}{_name(column)}:")
            yield _value(column.kind, str(place), folded)
            comma = ","


def _field(table: pa.Table, column: Column, name: str) -> pl.Expr:
    return (iso(table, name) if column.kind is Kind.INSTANT else pl.col(name)).alias(column.name)


def _value(kind: Kind, name: str, folded: Container[str]) -> pl.Expr:
    """Return a column's values as JSON: what is JSON as it is, on one line; what is not as a string."""
    cell = pl.col(name)
    if kind is Kind.DECIMAL:
        return cell.cast(pl.String).fill_null("null")
    # A raw line break in valid JSON stands between its tokens, where any white space will do.
    value = cell.str.replace_all(r"[\r\n]", " ") if name in folded else cell
    if kind is Kind.MAYBE_JSON:
        return pl.when(holds_json(kind, name)).then(value).otherwise(json_text(name)).fill_null("null")
    return value.fill_null("null")
