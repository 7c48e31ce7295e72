r"""Prepares the cells that several formats share: columns by position, JSON without needless `\uXXXX` escapes."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa

from pipeline.types import JSON_FLAG, Column, Kind

PIECE_BYTES = 2 << 20
"""Rows are prepared by the batch, but written in pieces of about this size, because writing makes several copies."""

_ESCAPED = r"\u"
# An escaped backslash, a surrogate pair, or one escape: the first from the left in valid JSON text.
_ESCAPE = r"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"
# Texts that are JSON up to a missing end: an object or a list, as far as their tokens tell, or a string.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*'
_TOKEN = rf'[ \t\r\n\[\]{{}},:]|-?[0-9][0-9.eE+-]*|true|false|null|{_STRING}"'
_CUT_STRING = rf"{_STRING}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?"
_CUT_WORD = r"-|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?"
_CUT_OFF = rf"^[ \t\r\n]*(?:[\[{{](?:{_TOKEN})*(?:{_CUT_STRING}|{_CUT_WORD})?|{_CUT_STRING})$"
_INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%S%.3fZ"


def list_fixed(columns: Sequence[Column]) -> list[Column]:
    """List the columns that have an Arrow column of their own: all except the sparse ones, which come last."""
    return [column for column in columns if column.kind is not Kind.SPARSE]


def make_frame(batch: pa.RecordBatch, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the columns named by position (`0`, `1`, …), because polars would read users' names as patterns.

    The batch has the columns first, then the companions; the companion of column `0` is named `0#json`. The one column
    of sparse cells comes last, and is left out.
    """
    places = [str(place) for place in range(len(columns))]
    maybe = {
        column.name: flag_name(str(place)) for place, column in enumerate(columns) if column.kind is Kind.MAYBE_JSON
    }
    companions = batch.schema.names[len(columns) : len(columns) + len(maybe)]
    flags = [maybe[name.removesuffix(JSON_FLAG)] for name in companions]
    arrays = batch.columns[: len(places) + len(flags)]
    return pl.DataFrame(pa.table(arrays, names=[*places, *flags]))


def cut_frame(frame: pl.DataFrame, batch: pa.RecordBatch) -> Iterator[pl.DataFrame]:
    """Yield the rows of a frame that was made of a batch, in pieces that are about PIECE_BYTES of the batch.

    They have the same number of rows, so a piece with large rows is larger.
    """
    pieces = -(-batch.nbytes // PIECE_BYTES)
    yield from frame.iter_slices(-(-len(frame) // pieces))


def flag_name(name: str) -> str:
    """Return the name of a MAYBE_JSON column's companion."""
    return f"{name}{JSON_FLAG}"


def mask_json(kind: Kind, name: str) -> pl.Expr:
    """Return for each cell of a JSON column whether it contains JSON."""
    return pl.col(flag_name(name)).fill_null(value=False) if kind is Kind.MAYBE_JSON else pl.col(name).is_not_null()


def list_checks(columns: Sequence[Column], others: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    r"""Name checks of cells: those for `\u` escapes, and others by name; made once for a file, because that is slow."""
    escapes = {
        f"{place}{_ESCAPED}": pl.col(str(place)).str.contains(_ESCAPED, literal=True)
        for place, column in enumerate(columns)
        if column.kind in {Kind.JSON, Kind.MAYBE_JSON}
    }
    return [check.alias(name) for name, check in (*escapes.items(), *others.items())]


def find_masks(frame: pl.DataFrame, checks: Sequence[pl.Expr]) -> dict[str, pl.Series]:
    """Evaluate checks of `list_checks` in one pass over the frame; return the masks that are true for some row."""
    return {mask.name: mask for mask in frame.select(checks) if mask.any()}


def choose_masks(masks: Mapping[str, pl.Series], ending: str) -> dict[str, pl.Series]:
    """Return the masks of the checks with this ending, by the name of the column."""
    return {name.removesuffix(ending): mask for name, mask in masks.items() if name.endswith(ending)}


def correct_cells(
    frame: pl.DataFrame, masks: Mapping[str, pl.Series], corrections: Mapping[str, Callable[[str], pl.Expr]]
) -> None:
    """Correct the cells of the masks; `corrections` makes the text to write, by the ending of the name of the check."""
    for ending, correct in corrections.items():
        if chosen := choose_masks(masks, ending):
            cells = _gather_cells(frame, chosen).to_frame("cell")
            _put_cells(frame, chosen, cells.select(correct("cell")).to_series())


def unescape_columns(frame: pl.DataFrame, masks: Mapping[str, pl.Series]) -> list[str]:
    r"""Replace the `\u` escapes in JSON, whole or cut off, by the characters; return the names of changed columns."""
    changed = choose_masks(masks, _ESCAPED)
    if changed:
        cells = _gather_cells(frame, changed)
        json = _find_json(frame, changed, cells)
        _put_cells(frame, changed, cells.scatter(json, unescape(cells[json])))
    return list(changed)


def _gather_cells(frame: pl.DataFrame, masks: Mapping[str, pl.Series]) -> pl.Series:
    """Return the cells of the masks, those of all columns together: a call of polars takes longer than a few cells."""
    return pl.concat([frame[name].filter(mask) for name, mask in masks.items()])


def _put_cells(frame: pl.DataFrame, masks: Mapping[str, pl.Series], texts: pl.Series) -> None:
    """Replace the cells that `_gather_cells` returns by the texts."""
    rows, start = pl.int_range(len(frame), dtype=pl.UInt32, eager=True), 0
    for name, mask in masks.items():
        cells = rows.filter(mask)
        changed = frame[name].scatter(cells, texts.slice(start, len(cells)))
        frame.replace_column(frame.get_column_index(name), changed)
        start += len(cells)


def _find_json(frame: pl.DataFrame, masks: Mapping[str, pl.Series], cells: pl.Series) -> pl.Series:
    """Return those of the gathered cells, by index, that are JSON, or are JSON up to a missing end."""
    flags = pl.concat(
        [
            (frame[flag] if (flag := flag_name(name)) in frame.columns else mask).filter(mask)
            for name, mask in masks.items()
        ]
    )
    json, cell = pl.col("json").fill_null(value=False), pl.col("cell")
    cut = pl.when(~json).then(cell).str.contains(_CUT_OFF)  # a when, so that it searches only cells that are not JSON
    return pl.DataFrame({"cell": cells, "json": flags}).select(pl.arg_where(json | cut)).to_series()


def unescape(texts: pl.Series) -> pl.Series:
    r"""Replace the `\uXXXX` escapes in JSON texts by their characters; each text keeps its JSON value.

    Quotes, backslashes and control characters stay escaped, because the text would change its meaning. Lone surrogates
    stay too, because UTF-8 can't hold them. All cells must be JSON, JSON without its end, or null.
    """
    found = pl.col("text").str.extract_all(_ESCAPE).explode(empty_as_null=False).unique().drop_nulls()
    escapes = texts.to_frame("text").select(found).to_series()
    table = {escape: text for escape in escapes if (text := _decode(escape)) is not None}
    # A match of the escaped backslash hides the text after it from the other patterns.
    return texts.str.replace_many({**table, r"\\": r"\\"}) if table else texts


def _decode(escape: str) -> str | None:
    """Return the character of an escape, or None where the escape has to stay."""
    if escape == r"\\":
        return None
    units = [int(unit, 16) for unit in escape.split(r"\u")[1:]]
    if len(units) == 1:
        (code,) = units
    else:
        code = 0x10000 + ((units[0] - 0xD800) << 10) + (units[1] - 0xDC00)
    character = chr(code)
    stays = character in '"\\' or unicodedata.category(character) in {"Cc", "Cs"}
    return None if stays else character


def format_instants(name: str) -> pl.Expr:
    """Return an INSTANT column as ISO 8601 text in UTC, cut to milliseconds."""
    return pl.col(name).dt.strftime(_INSTANT_FORMAT)


def format_numbers(name: str) -> pl.Expr:
    """Return a NUMBER column as texts with the shortest digits, `1` for 1.0, `0` for -0.0; infinities are words."""
    number = pl.col(name)
    # Adding zero leaves -0.0 as it is.
    unsigned = pl.when(number == 0).then(0.0).otherwise(number)
    return unsigned.cast(pl.String).str.strip_suffix(".0")


def format_decimals(name: str) -> pl.Expr:
    """Return a DECIMAL column as texts with all digits, without the zeros at their end."""
    return pl.col(name).cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")


def format_json(name: str) -> pl.Expr:
    """Return each value of a column as the text of a JSON value, and null as null; NaN and infinities are `null`.

    Only the values that are not null are encoded, because columns of scores are mostly null.
    """
    present = pl.col(name).is_not_null()
    boxed = pl.struct(pl.col(name).drop_nulls().alias("v")).struct.json_encode()
    texts = boxed.str.strip_prefix('{"v":').str.strip_suffix("}")
    return texts.gather(pl.when(present).then(present.cum_sum() - 1)).alias(name)


def concatenate(texts: pl.Series) -> memoryview:
    """Return the texts one after the other; none may be null."""
    _, offsets, text = texts.to_arrow().cast(pa.large_string()).buffers()
    ends = memoryview(offsets).cast("q")
    return memoryview(text)[ends[0] : ends[texts.len()]]
