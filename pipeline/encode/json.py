"""Encodes JSON and JSONL: each row is an object; cells that contain JSON are spliced in as they are."""

import itertools
import json
from collections.abc import Container, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.buffer import Chunk
from pipeline.encode.cells import (
    concatenate,
    find_masks,
    format_decimals,
    format_instants,
    format_json,
    format_numbers,
    list_fixed,
    make_frame,
    mask_json,
    unescape_columns,
)
from pipeline.encode.sparse import SPREAD_COLUMNS, Template, list_texts, spread_cells
from pipeline.types import CELLS, Column, Encoding, Kind

_SPLICED = {Kind.JSON, Kind.MAYBE_JSON, Kind.DECIMAL, Kind.NUMBER}


def encode_jsonl(
    columns: Sequence[Column],
    batches: Iterator[pa.RecordBatch],
    encoding: Encoding,  # noqa: ARG001 (every Encode has it)
) -> Iterator[Chunk]:
    """Yield one JSON object per line, keys in the order of the columns; without rows, no bytes.

    Cells that contain JSON are JSON values. Decimals are numbers with all their digits. Null, NaN and the infinities
    are null.
    """
    yield from _encode_objects(columns, batches, "", "\n")


def encode_json(
    columns: Sequence[Column],
    batches: Iterator[pa.RecordBatch],
    encoding: Encoding,  # noqa: ARG001 (every Encode has it)
) -> Iterator[Chunk]:
    """Yield one JSON array of the objects of `encode_jsonl`, each on its line; `[]` without rows."""
    yield b"["
    comma = 1
    for chunk in _encode_objects(columns, batches, ",\n", ""):
        yield chunk[comma:]
        comma = 0
    yield b"]\n" if comma else b"\n]\n"


def _encode_name(column: Column) -> str:
    return json.dumps(column.name, ensure_ascii=False)


def _encode_objects(
    columns: Sequence[Column], batches: Iterator[pa.RecordBatch], before: str, after: str
) -> Iterator[Chunk]:
    """Yield the rows as JSON objects, each between `before` and `after`."""
    fixed, start, end = list_fixed(columns), before + "{", "}" + after
    leads = [f",{_encode_name(column)}:" for column in columns[len(fixed) :]]
    template = Template(leads, "null", end)
    for batch in batches:
        if not batch.num_rows:
            continue
        if len(leads) <= SPREAD_COLUMNS:
            yield concatenate(_encode_rows(batch, fixed, start, *_list_sparse(batch, leads), end))
            continue
        cells = batch.column(CELLS)
        texts = pl.Series(list_texts(cells), dtype=pl.String)
        yield from template.encode_rows(_encode_rows(batch, fixed, start), cells, texts)


def _list_sparse(batch: pa.RecordBatch, leads: Sequence[str]) -> Iterator[str | pl.Series]:
    """Yield for each sparse column its lead and its cells."""
    made = spread_cells(batch.column(CELLS), len(leads)) if leads else []
    for lead, texts in zip(leads, made, strict=True):
        yield lead
        yield texts.fill_null("null")


def _encode_rows(batch: pa.RecordBatch, columns: Sequence[Column], start: str, *rest: str | pl.Series) -> pl.Series:
    """Return each row's text: the start, its pairs, and the rest."""
    frame = make_frame(batch, columns)
    masks = find_masks(frame, columns, _list_checks(columns))
    row = pl.concat_str(pl.lit(start), *_encode_pairs(columns, masks), *map(pl.lit, rest))
    return frame.with_columns(unescape_columns(frame, masks)).select(row).to_series()


def _list_checks(columns: Sequence[Column]) -> dict[str, pl.Expr]:
    """List the checks for JSON cells with a raw line break, by column."""
    return {
        str(place): pl.col(str(place)).str.contains(r"[\r\n]")
        for place, column in enumerate(columns)
        if column.kind in {Kind.JSON, Kind.MAYBE_JSON}
    }


def _encode_pairs(columns: Sequence[Column], folded: Container[str]) -> Iterator[pl.Expr]:
    """Yield the text of each `"name":value`; adjacent columns that polars can encode are encoded together: faster."""
    comma = ""
    for spliced, run in itertools.groupby(enumerate(columns), lambda pair: pair[1].kind in _SPLICED):
        if not spliced:
            fields = [_select_field(column, str(place)) for place, column in run]
            yield pl.lit(comma)
            yield pl.struct(fields).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
            comma = ","
            continue
        for place, column in run:
            yield pl.lit(f"{comma}{_encode_name(column)}:")
            yield _encode_value(column.kind, str(place), folded)
            comma = ","


def _select_field(column: Column, name: str) -> pl.Expr:
    return (format_instants(name) if column.kind is Kind.INSTANT else pl.col(name)).alias(column.name)


def _encode_value(kind: Kind, name: str, folded: Container[str]) -> pl.Expr:
    """Return a column's values as JSON: JSON cells as they are, on one line; other cells as strings."""
    cell = pl.col(name)
    if kind is Kind.DECIMAL:
        return format_decimals(name).fill_null("null")
    if kind is Kind.NUMBER:
        return pl.when(cell.is_finite()).then(format_numbers(name)).otherwise(pl.lit("null"))
    # A raw line break in valid JSON is between tokens, where any white space is allowed.
    value = cell.str.replace_all(r"[\r\n]", " ") if name in folded else cell
    if kind is Kind.MAYBE_JSON:
        return pl.when(mask_json(kind, name)).then(value).otherwise(format_json(name)).fill_null("null")
    return value.fill_null("null")
