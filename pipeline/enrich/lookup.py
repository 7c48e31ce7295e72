"""Makes columns out of what was looked up by the ids of a batch."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa


def distinct(keys: pa.Array) -> list[str]:
    """List the keys that are there, each once."""
    return [key for key in keys.unique().to_pylist() if key is not None]


def texts(keys: pa.Array, found: Mapping[str, str | None], default: str | None) -> pa.Array:
    """Make a column of what was found for each key, else the default.

    Made in polars: pyarrow imports pandas, where that is installed, for any value of Python's: 50 MiB.
    """
    series = pl.Series(keys, dtype=pl.String)
    made = series.replace_strict(list(found), list(found.values()), default=default, return_dtype=pl.String)
    return made.to_arrow().cast(pa.string())
