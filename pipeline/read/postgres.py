"""Reads the rows of a table in Postgres or SQLite through a cursor, in one snapshot, as record batches."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import polars as pl
import pyarrow as pa
from sqlalchemy import Connection, Engine, Select, func, select, true

from pipeline.database import connected, stoppable
from pipeline.query import postgres as relational
from pipeline.read import sqlite
from pipeline.spec import ExportSpec
from pipeline.tables.database_table import Field, Relational
from pipeline.types import JSON_FLAG, Kind, Progress

# What one fetch may bring; storage compresses texts, by this factor at least.
FETCH_BYTES = 4 << 20
COMPRESSED = 8
ROW_BYTES = 256
MOST_ROWS = 2048
FEWEST_ROWS = 16

SETTINGS = {
    # An upload over a slow line leaves minutes between two reads, and a sort hours before the first.
    "idle_in_transaction_session_timeout": "30min",
    "statement_timeout": "12h",
    # All rows will be read: a plan that has the first ones early is not the best.
    "cursor_tuple_fraction": "1",
}


def batches(table: Relational, spec: ExportSpec, database: Engine, progress: Progress) -> Generator[pa.RecordBatch]:
    """Give the rows that the spec asks for, as they are when the first is read.

    Raises Rejected at once for what the table can't honour; reading raises Unavailable when the database fails, and
    Cancelled once `progress` is stopped.
    """
    rows, widest = relational.rows(table, spec, database), relational.widest(table, spec)
    return _batches(table, rows, widest, spec, stoppable(database, progress))


@contextmanager
def _snapshot(database: Engine) -> Iterator[Connection]:
    """Connect, and see the rows as they are at the first statement for as long as the block lasts."""
    with connected(database) as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            connection.execute(select(*(func.set_config(*each, true()) for each in SETTINGS.items())))
        else:
            driver: Any = connection.connection.driver_connection
            sqlite.teach(driver)
        yield connection


def _batches(
    table: Relational, rows: Select[Any], widest: Select[Any], spec: ExportSpec, database: Engine
) -> Generator[pa.RecordBatch]:
    with _snapshot(database) as connection:
        size = connection.scalar(widest) or 0
        fetched = max(FEWEST_ROWS, min(MOST_ROWS, FETCH_BYTES // (size * COMPRESSED + ROW_BYTES)))
        with connection.execute(rows, execution_options={"yield_per": fetched}) as result:
            for part in result.partitions():
                yield _batch(table.fields, list(zip(*part, strict=True)), nested=spec.encoding.format.nested)


def _batch(fields: Sequence[Field], values: Sequence[Sequence[Any]], *, nested: bool) -> pa.RecordBatch:
    arrays = {}
    for field, cells in zip(fields, values, strict=True):
        arrays[field.name] = _array(field.kind, cells)
        if field.kind is Kind.MAYBE_JSON:
            arrays[f"{field.name}{JSON_FLAG}"] = _flags(cells, nested=nested)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _array(kind: Kind, cells: Sequence[Any]) -> pa.Array:
    """Make a column; in polars, for pyarrow imports pandas, where that is installed, for any value of Python's."""
    if kind is Kind.INSTANT:  # milliseconds are what the application stores
        return pl.Series(cells, dtype=pl.Datetime("ms")).dt.replace_time_zone("UTC").to_arrow()
    return pl.Series(cells, dtype=pl.String).to_arrow().cast(pa.string())


def _flags(cells: Sequence[str | None], *, nested: bool) -> pa.Array:
    r"""Tell which cells hold JSON; a format that writes it as text needs to know where it has `\u` escapes only."""
    asked = (cell if cell is not None and (nested or "\\u" in cell) else None for cell in cells)
    return pl.Series([cell is not None and _is_json(cell) for cell in asked], dtype=pl.Boolean).to_arrow()


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return False
    return True


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)
