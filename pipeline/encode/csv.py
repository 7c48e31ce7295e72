"""Encodes CSV: RFC 4180, UTF-8, every value in full."""

from collections.abc import Container, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.buffer import Pieces
from pipeline.encode.cells import found, iso, json_text, own, positional, unescaped
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.slices import sized
from pipeline.encode.sparse import FEW, Template, spread, texts_of
from pipeline.types import CELLS, Column, Kind

_SLICE = 5 << 20
_RUNS = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SPECIAL = r'[",\r\n]'


def encode_csv(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], options: EncodeOptions) -> Iterator[Chunk]:
    """Yield a header, always, and the rows; lines end with CRLF.

    Null is an empty field and empty text is `""`. Lists and JSON are JSON text. With `options.neutralise`, cells and
    names that a spreadsheet would run as a formula get an apostrophe in front; plain numbers stay.
    """
    yield _header(columns, options)
    fixed = own(columns)
    template = Template([","] * (len(columns) - len(fixed)), "", "\r\n")
    for table in sized(batches, _SLICE):
        yield from _rows(table, fixed, template, options)


def _header(columns: Sequence[Column], options: EncodeOptions) -> bytes:
    name = pl.col("name")
    named = pl.DataFrame({"name": [column.name for column in columns]}, schema={"name": pl.String})
    names = named.select(name=_safe(name) if options.neutralise else name)
    line = names.select(pl.when(_special(name)).then(_quoted(name)).otherwise(name).str.join(",")).item()
    return f"{line}\r\n".encode()


def _rows(table: pa.Table, columns: Sequence[Column], template: Template, options: EncodeOptions) -> Iterator[Chunk]:
    frame = positional(table, columns)
    masks = found(frame, columns, _checks(columns, options))
    texts = frame.with_columns(unescaped(frame, masks)).select(
        _text(table, column.kind, str(place), masks).alias(str(place)) for place, column in enumerate(columns)
    )
    if not template.columns:
        yield _write(texts)
        return
    cells = table[CELLS].combine_chunks()
    if template.columns <= FEW:
        yield _write(texts.hstack(spread(cells, template.columns)))
    else:
        yield from template.rows(_joined(texts), cells, _quoted_all(texts_of(cells)))


def _write(texts: pl.DataFrame) -> bytes:
    target = Pieces()
    texts.write_csv(target, include_header=False, line_terminator="\r\n", quote_style="necessary")  # type: ignore[call-overload] # all it does is write
    return target.take()


def _joined(texts: pl.DataFrame) -> pl.Series:
    """Write the rows as `_write` does, without their ends."""
    special = texts.select(_special(pl.all()))
    cells = []
    for name in texts.columns:
        cell = pl.col(name)
        quoted = pl.when(special[name]).then(_quoted(cell)).otherwise(cell) if special[name].any() else cell
        cells += [quoted.fill_null(""), pl.lit(",")]
    return texts.select(pl.concat_str(*cells[:-1])).to_series()


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


def _text(table: pa.Table, kind: Kind, name: str, special: Container[str]) -> pl.Expr:
    cell = pl.col(name)
    match kind:
        case Kind.TEXT | Kind.MAYBE_JSON:
            return _safe(cell) if name in special else cell
        case Kind.NUMBER if name in special:
            return cell.cast(pl.String).str.replace("inf", "Infinity", literal=True)
        case Kind.INSTANT:
            return iso(table, name)
        case Kind.LIST:
            return json_text(name)
        case _:
            return cell.cast(pl.String)


def _quoted_all(texts: pa.Array) -> pl.Series:
    text = pl.col("text")
    frame = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    return frame.select(pl.when(_special(text)).then(_quoted(text)).otherwise(text)).to_series()


def _safe(cell: pl.Expr) -> pl.Expr:
    runs = cell.str.contains(_RUNS) & ~cell.str.contains(_NUMBER)
    return pl.when(runs).then(pl.concat_str(pl.lit("'"), cell)).otherwise(cell)


def _special(cell: pl.Expr) -> pl.Expr:
    """Ask which texts need quotes: those with a comma, a quote or an end of a line, and the empty one."""
    return cell.str.contains(_SPECIAL) | (cell.str.len_bytes() == 0)


def _quoted(cell: pl.Expr) -> pl.Expr:
    return pl.concat_str(pl.lit('"'), cell.str.replace_all('"', '""', literal=True), pl.lit('"'))
