"""Encodes JSON and JSONL: every row an object, with JSON cells spliced in as they are."""

import itertools
import json
from collections.abc import Container, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.encode.cells import found, holds_json, in_one_piece, iso, json_text, own, positional, unescaped
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.slices import sized
from pipeline.encode.sparse import FEW, Template, spread, texts_of
from pipeline.types import CELLS, Column, Kind

_SLICE = 5 << 20
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
    yield from _objects(columns, batches, "", "\n")


def encode_json(
    columns: Sequence[Column],
    batches: Iterator[pa.RecordBatch],
    options: EncodeOptions,  # noqa: ARG001 (every Encode has it)
) -> Iterator[Chunk]:
    """Yield one JSON array of the objects that `encode_jsonl` writes, each on a line; `[]` without rows."""
    yield b"["
    comma = 1
    for chunk in _objects(columns, batches, ",\n", ""):
        yield chunk[comma:]
        comma = 0
    yield b"]\n" if comma else b"\n]\n"


def _name(column: Column) -> str:
    return json.dumps(column.name, ensure_ascii=False)


def _objects(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], before: str, after: str) -> Iterator[Chunk]:
    """Yield the rows as JSON objects, each between `before` and `after`."""
    fixed, start, end = own(columns), before + "{", "}" + after
    leads = [f",{_name(column)}:" for column in columns[len(fixed) :]]
    template = Template(leads, "null", end)
    for table in sized(batches, _SLICE):
        if len(leads) <= FEW:
            yield in_one_piece(_written(table, fixed, start, *_few(table, leads), end))
            continue
        cells = table[CELLS].combine_chunks()
        texts = pl.Series(texts_of(cells), dtype=pl.String)
        yield from template.rows(_written(table, fixed, start), cells, texts)


def _few(table: pa.Table, leads: Sequence[str]) -> Iterator[str | pl.Series]:
    """Yield what stands for each of a few sparse columns: its lead, and its cells."""
    made = spread(table[CELLS].combine_chunks(), len(leads)) if leads else []
    for lead, texts in zip(leads, made, strict=True):
        yield lead
        yield texts.fill_null("null")


def _written(table: pa.Table, columns: Sequence[Column], start: str, *rest: str | pl.Series) -> pl.Series:
    """Return each row's text: the start, its pairs, and the rest."""
    frame = positional(table, columns)
    masks = found(frame, columns, _checks(columns))
    row = pl.concat_str(pl.lit(start), *_pairs(table, columns, masks), *map(pl.lit, rest))
    return frame.with_columns(unescaped(frame, masks)).select(row).to_series()


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
