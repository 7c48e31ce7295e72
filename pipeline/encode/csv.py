"""Encodes CSV: RFC 4180, UTF-8, every value in full."""

import codecs
from collections.abc import Callable, Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.buffer import Chunk, WriteBuffer
from pipeline.encode.cells import (
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
    unescape_columns,
)
from pipeline.encode.sparse import SPREAD_COLUMNS, Template, list_texts, spread_cells
from pipeline.types import CELLS, Column, Encoding, Kind

_BLANK = r"[ \t\n\v\f\r\x00\x85\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]"
# Programs skip blanks before a formula, and read full-width signs as the others. They also run `- item` and `@handle`.
_FORMULA = rf"^(?:[\t\r\n]|{_BLANK}*[=+\-@\uff1d\uff0b\uff0d\uff20])"
_NUMBER = r"^ *[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_QUOTED = r'[",\r\n]'


def encode_csv(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], encoding: Encoding) -> Iterator[Chunk]:
    """Yield a header, always, and the rows; lines end with CRLF.

    Null is an empty field and empty text is `""`; if there is one column only, null is `""`, too, because readers skip
    empty lines. Lists and JSON are JSON text. With `csv_neutralise`, cells and names that a spreadsheet would run as a
    formula get an apostrophe in front; plain numbers stay. With `csv_bom`, a byte order mark comes first.
    """
    if encoding.options.csv_bom:
        yield codecs.BOM_UTF8
    safe = encoding.options.csv_neutralise
    yield _encode_header(columns, safe=safe)
    fixed = list_fixed(columns)
    make_texts = prepare_texts(fixed, safe=safe)
    template = Template([","] * (len(columns) - len(fixed)), "", "\r\n")
    for batch in batches:
        if batch.num_rows:
            yield from _encode_rows(batch, make_texts(batch), template)


def prepare_texts(columns: Sequence[Column], *, safe: bool) -> Callable[[pa.RecordBatch], pl.DataFrame]:
    """Return a function that makes the cells of the fixed columns of a batch to texts, not quoted.

    The columns of its frames are named by position. `safe`: cells that a spreadsheet would run as a formula get an
    apostrophe in front.
    """
    checks = list_checks(columns, _list_checks(columns, safe=safe))
    formats = [_format(column.kind, str(place)).alias(str(place)) for place, column in enumerate(columns)]

    def make_texts(batch: pa.RecordBatch) -> pl.DataFrame:
        frame = make_frame(batch, columns)
        masks = find_masks(frame, checks)
        unescape_columns(frame, masks)
        texts = frame.select(formats)
        correct_cells(texts, masks, _CORRECTIONS)
        return texts

    return make_texts


def _neutralise(name: str) -> pl.Expr:
    """Put an apostrophe in front of texts that a spreadsheet would run as a formula; plain numbers stay."""
    cell = pl.col(name)
    runs = cell.str.contains(_FORMULA) & ~cell.str.contains(_NUMBER)
    return pl.when(runs).then(pl.concat_str(pl.lit("'"), cell)).otherwise(cell)


def _name_infinity(name: str) -> pl.Expr:
    return pl.col(name).str.replace("inf", "Infinity", literal=True)


_RUNS, _INFINITE = " may be a formula", " is infinite"
_CORRECTIONS = {_RUNS: _neutralise, _INFINITE: _name_infinity}
"""How to write the cells that are not written as they are, by the end of the name of their check."""


def _list_checks(columns: Sequence[Column], *, safe: bool) -> dict[str, pl.Expr]:
    """List the checks for cells that need more than a cast."""
    checks = {}
    for place, column in enumerate(columns):
        name = str(place)
        if column.kind in {Kind.TEXT, Kind.MAYBE_JSON} and safe:
            checks[f"{name}{_RUNS}"] = pl.col(name).str.contains(_FORMULA)
        elif column.kind is Kind.NUMBER:
            checks[f"{name}{_INFINITE}"] = pl.col(name).is_infinite()
    return checks


def _format(kind: Kind, name: str) -> pl.Expr:
    match kind:
        case Kind.TEXT | Kind.MAYBE_JSON | Kind.JSON:
            return pl.col(name)
        case Kind.NUMBER:
            return format_numbers(name)
        case Kind.INSTANT:
            return format_instants(name)
        case Kind.DECIMAL:
            return format_decimals(name)
        case Kind.LIST:
            return format_json(name)
        case _:
            return pl.col(name).cast(pl.String)


def _encode_header(columns: Sequence[Column], *, safe: bool) -> bytes:
    named = pl.DataFrame({"name": [column.name for column in columns]}, schema={"name": pl.String})
    names = named.select(name=_neutralise("name")) if safe else named
    line = names.select(_quote_where_needed(pl.col("name")).str.join(",")).item()
    return f"{line}\r\n".encode()


def _encode_rows(batch: pa.RecordBatch, texts: pl.DataFrame, template: Template) -> Iterator[Chunk]:
    if not template.columns:
        whole = texts if texts.width > 1 else texts.with_columns(pl.all().fill_null(""))
        yield from map(_write, cut_frame(whole, batch))
        return
    cells = batch.column(CELLS)
    if template.columns <= SPREAD_COLUMNS:
        yield from map(_write, cut_frame(texts.hstack(spread_cells(cells, template.columns)), batch))
        return
    sparse = pl.DataFrame({"text": pl.Series(list_texts(cells), dtype=pl.String)})
    quoted = sparse.select(_quote_where_needed(pl.col("text"))).to_series()
    yield from template.encode_rows(_join_fields(texts), cells, quoted)


def _write(texts: pl.DataFrame) -> bytes:
    target = WriteBuffer()
    texts.write_csv(target, include_header=False, line_terminator="\r\n", quote_style="necessary")  # type: ignore[call-overload] # it only calls write
    return target.take()


def _join_fields(texts: pl.DataFrame) -> pl.Series:
    """Return the rows as `_write` writes them, without the line ends."""
    special = texts.select(_needs_quotes(pl.all()))
    cells = []
    for name in texts.columns:
        cell = pl.col(name)
        quoted = pl.when(special[name]).then(_quote(cell)).otherwise(cell) if special[name].any() else cell
        cells += [quoted.fill_null(""), pl.lit(",")]
    return texts.select(pl.concat_str(*cells[:-1])).to_series()


def _quote_where_needed(cell: pl.Expr) -> pl.Expr:
    return pl.when(_needs_quotes(cell)).then(_quote(cell)).otherwise(cell)


def _needs_quotes(cell: pl.Expr) -> pl.Expr:
    """Find the texts that need quotes: those with a comma, a quote or a line break, and the empty text."""
    return cell.str.contains(_QUOTED) | (cell.str.len_bytes() == 0)


def _quote(cell: pl.Expr) -> pl.Expr:
    return pl.concat_str(pl.lit('"'), cell.str.replace_all('"', '""', literal=True), pl.lit('"'))
