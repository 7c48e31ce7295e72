"""Makes columns of values that were looked up by the ids of a batch; the enrichers share it."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa


def list_distinct(keys: pa.Array) -> list[str]:
    """List the keys that are not null, each once."""
    return [key for key in keys.unique().to_pylist() if key is not None]


def make_texts(keys: pa.Array, found: Mapping[str, str | None], default: str | None) -> pa.Array:
    """Make a column with the text found for each key, or the default.

    It uses polars: pyarrow would import pandas (50 MiB), if that is installed, to convert a Python value.
    """
    series = pl.Series(keys, dtype=pl.String)
    column = series.replace_strict(list(found), list(found.values()), default=default, return_dtype=pl.String)
    return column.to_arrow().cast(pa.string())
