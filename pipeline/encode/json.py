"""Encodes JSON and JSONL: each row is an object; cells that contain JSON are spliced in as they are."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.buffer import Chunk
from pipeline.encode.cells import (
    concatenate,
    correct_cells,
    cut_frame,
    find_masks,
    format_decimals,
    format_instants,
    format_json,
    format_numbers,
    list_checks,
    list_fixed,
    make_frame,
    mask_json,
    unescape_columns,
)
from pipeline.encode.sparse import SPREAD_COLUMNS, Template, list_texts, name_sparse, spread_cells
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
    if len(leads) <= SPREAD_COLUMNS:
        encode_rows = _prepare_rows(fixed, start, leads, end)
        for batch in batches:
            if batch.num_rows:
                yield from map(concatenate, encode_rows(batch))
        return
    encode_rows, template = _prepare_rows(fixed, start, [], ""), Template(leads, "null", end)
    for batch in batches:
        if batch.num_rows:
            cells = batch.column(CELLS)
            texts = pl.Series(list_texts(cells), dtype=pl.String)
            yield from template.encode_rows(pl.concat(encode_rows(batch)), cells, texts)


def _prepare_rows(
    columns: Sequence[Column], start: str, leads: Sequence[str], end: str
) -> Callable[[pa.RecordBatch], Iterator[pl.Series]]:
    """Return a function that gives each row's text, in pieces: start, pairs, each lead with its sparse cell, end."""
    checks = list_checks(columns, _list_checks(columns))
    sparse = [(pl.lit(lead), pl.col(name)) for lead, name in zip(leads, name_sparse(len(leads)), strict=True)]
    row = pl.concat_str(pl.lit(start), *_encode_pairs(columns), *itertools.chain(*sparse), pl.lit(end))

    def encode_rows(batch: pa.RecordBatch) -> Iterator[pl.Series]:
        frame = make_frame(batch, columns)
        masks = find_masks(frame, checks)
        unescape_columns(frame, masks)
        correct_cells(frame, masks, _CORRECTIONS)
        if leads:
            frame = frame.hstack(spread_cells(batch.column(CELLS), len(leads), absent="null"))
        for piece in cut_frame(frame, batch):
            yield piece.select(row).to_series()

    return encode_rows


def _fold(name: str) -> pl.Expr:
    """Return JSON on one line: a raw line break in valid JSON is between tokens, where any white space is allowed."""
    return pl.col(name).str.replace_all(r"[\r\n]", " ")


_FOLDED, _PLAIN = " has line breaks", " is plain text"
_CORRECTIONS: dict[str, Callable[[str], pl.Expr]] = {_FOLDED: _fold, _PLAIN: format_json}
"""How to write the cells that are not written as they are, by the end of the name of their check."""


def _list_checks(columns: Sequence[Column]) -> dict[str, pl.Expr]:
    """List the checks for JSON cells with a raw line break, and for texts that are not JSON."""
    checks = {}
    for place, column in enumerate(columns):
        name = str(place)
        if column.kind in {Kind.JSON, Kind.MAYBE_JSON}:
            checks[f"{name}{_FOLDED}"] = pl.col(name).str.contains(r"[\r\n]") & mask_json(column.kind, name)
        if column.kind is Kind.MAYBE_JSON:
            checks[f"{name}{_PLAIN}"] = pl.col(name).is_not_null() & ~mask_json(column.kind, name)
    return checks


def _encode_pairs(columns: Sequence[Column]) -> Iterator[pl.Expr]:
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
            yield _encode_value(column.kind, str(place))
            comma = ","


def _select_field(column: Column, name: str) -> pl.Expr:
    return (format_instants(name) if column.kind is Kind.INSTANT else pl.col(name)).alias(column.name)


def _encode_value(kind: Kind, name: str) -> pl.Expr:
    """Return a column's values as JSON; cells with JSON are JSON already."""
    cell = pl.col(name)
    if kind is Kind.DECIMAL:
        return format_decimals(name).fill_null("null")
    if kind is Kind.NUMBER:
        return pl.when(cell.is_finite()).then(format_numbers(name)).otherwise(pl.lit("null"))
    return cell.fill_null("null")
