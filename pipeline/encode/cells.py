"""Prepares what CSV, JSON and Parquet share: columns by position, and JSON cells without needless escapes."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from pipeline.encode.escapes import unescape
from pipeline.types import JSON_FLAG, Column, Kind

_ESCAPED = r"\u"
_ISO = {"ms": "%Y-%m-%dT%H:%M:%S%.3fZ", "us": "%Y-%m-%dT%H:%M:%S%.6fZ"}


def own(columns: Sequence[Column]) -> list[Column]:
    """List the columns that come in one of their own: all before the sparse ones."""
    return [column for column in columns if column.kind is not Kind.SPARSE]


def positional(table: pa.Table, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the columns named by position (`0`, `1`, …), for polars would read users' names as patterns.

    The table has the columns first, then the companions; the companion of column `0` is named `0#json`. What all sparse
    columns are in comes last, and is left out.
    """
    places = [str(place) for place in range(len(columns))]
    maybe = {column.name: flag_of(str(place)) for place, column in enumerate(columns) if column.kind is Kind.MAYBE_JSON}
    companions = table.schema.names[len(columns) : len(columns) + len(maybe)]
    flags = [maybe[name.removesuffix(JSON_FLAG)] for name in companions]
    kept = table.select(range(len(places) + len(flags)))
    return pl.DataFrame(kept.rename_columns([*places, *flags]))


def flag_of(name: str) -> str:
    """Return the name of a MAYBE_JSON column's companion."""
    return f"{name}{JSON_FLAG}"


def holds_json(kind: Kind, name: str) -> pl.Expr:
    """Say of each cell of a JSON column whether it holds JSON."""
    return pl.col(flag_of(name)).fill_null(value=False) if kind is Kind.MAYBE_JSON else pl.col(name).is_not_null()


def found(frame: pl.DataFrame, columns: Sequence[Column], checks: dict[str, pl.Expr]) -> dict[str, pl.Series]:
    """Return the masks of the checks that hold for a row at least, and of the escapes that `unescaped` mends.

    One pass over the frame for all of them: it is the passes that cost.
    """
    masks = frame.select(mask.alias(name) for name, mask in (_escapes(columns) | checks).items())
    return {mask.name: mask for mask in masks if mask.any()}


def _escapes(columns: Sequence[Column]) -> dict[str, pl.Expr]:
    return {
        f"{place}{_ESCAPED}": pl.col(str(place)).str.contains(_ESCAPED, literal=True)
        & holds_json(column.kind, str(place))
        for place, column in enumerate(columns)
        if column.kind in {Kind.JSON, Kind.MAYBE_JSON}
    }


def unescaped(frame: pl.DataFrame, masks: dict[str, pl.Series]) -> list[pl.Series]:
    r"""Return the columns that hold `\u` escapes in JSON, with the characters themselves in their place."""
    result = []
    for mask_name, mask in masks.items():
        if mask_name.endswith(_ESCAPED):
            series, cells = frame[mask_name.removesuffix(_ESCAPED)], mask.arg_true()
            result.append(series.scatter(cells, unescape(series.gather(cells))))
    return result


def iso(table: pa.Table, name: str) -> pl.Expr:
    """Return an INSTANT column as ISO 8601 text in UTC."""
    return pl.col(name).dt.strftime(_ISO[table.field(int(name)).type.unit])


def json_text(name: str) -> pl.Expr:
    """Return each value of a column as the text of a JSON value, and null as null; NaN and infinities are `null`.

    Only what is there is encoded, for columns of scores are mostly null.
    """
    there = pl.col(name).is_not_null()
    boxed = pl.struct(pl.col(name).drop_nulls().alias("v")).struct.json_encode()
    texts = boxed.str.strip_prefix('{"v":').str.strip_suffix("}")
    return texts.gather(pl.when(there).then(there.cum_sum() - 1)).alias(name)


def in_one_piece(texts: pl.Series) -> memoryview:
    """Return the texts one after the other; none may be null."""
    _, offsets, text = texts.to_arrow().cast(pa.large_string()).buffers()
    ends = memoryview(offsets).cast("q")
    return memoryview(text)[ends[0] : ends[texts.len()]]
