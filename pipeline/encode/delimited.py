"""Encodes CSV: RFC 4180, UTF-8, every value in full."""

import io
from collections.abc import Container, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.encode.cells import found, iso, json_text, positional, unescaped
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.slices import sized
from pipeline.types import Column, Kind

_SLICE = 5 << 20
_RUNS = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def encode_csv(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], options: EncodeOptions) -> Iterator[Chunk]:
    """Yield a header, always, and the rows; lines end with CRLF.

    Null is an empty field and empty text is `""`. Lists and JSON are JSON text. With `options.neutralise`, cells and
    names that a spreadsheet would run as a formula get an apostrophe in front; plain numbers stay.
    """
    yield _header(columns, options)
    for table in sized(batches, _SLICE):
        frame = positional(table, columns)
        masks = found(frame, columns, _checks(columns, options))
        yield _write(
            frame.with_columns(unescaped(frame, masks)).select(
                _cell(table, column.kind, str(place), masks) for place, column in enumerate(columns)
            )
        )


def _header(columns: Sequence[Column], options: EncodeOptions) -> Chunk:
    names = pl.DataFrame({str(place): [column.name] for place, column in enumerate(columns)})
    return _write(names.select(_safe(name) for name in names.columns) if options.neutralise else names)


def _checks(columns: Sequence[Column], options: EncodeOptions) -> dict[str, pl.Expr]:
    """Name the columns that need care if one of their cells does."""
    checks = {}
    for place, column in enumerate(columns):
        cell = pl.col(str(place))
        if column.kind in {Kind.TEXT, Kind.MAYBE_JSON} and options.neutralise:
            checks[str(place)] = cell.str.contains(_RUNS)
        elif column.kind is Kind.NUMBER:
            checks[str(place)] = cell.is_infinite()
    return checks


def _cell(table: pa.Table, kind: Kind, name: str, special: Container[str]) -> pl.Expr:
    match kind:
        case Kind.TEXT | Kind.MAYBE_JSON if name in special:
            return _safe(name)
        case Kind.NUMBER if name in special:
            return pl.col(name).cast(pl.String).str.replace("inf", "Infinity", literal=True)
        case Kind.INSTANT:
            return iso(table, name)
        case Kind.LIST:
            return json_text(name)
        case _:
            return pl.col(name)


def _safe(name: str) -> pl.Expr:
    cell = pl.col(name)
    runs = cell.str.contains(_RUNS) & ~cell.str.contains(_NUMBER)
    return pl.when(runs).then(pl.concat_str(pl.lit("'"), cell)).otherwise(cell).alias(name)


def _write(frame: pl.DataFrame) -> Chunk:
    target = io.BytesIO()
    frame.write_csv(target, include_header=False, line_terminator="\r\n", quote_style="necessary")
    return target.getbuffer()
