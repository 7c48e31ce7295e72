"""Reads the rows of a table in Postgres or SQLite through a cursor, in one snapshot, as record batches."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import polars as pl
import pyarrow as pa
from sqlalchemy import Connection, Engine, Select, func, select, true

from pipeline.interrupt import connect, interrupt_on_stop
from pipeline.progress import Progress
from pipeline.query.postgres import select_rows, select_widest
from pipeline.query.resolve_columns import resolve_query
from pipeline.read import sqlite
from pipeline.spec import ExportSpec
from pipeline.tables.columns import DatabaseOutput
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import JSON_FLAG, Kind

# The size of one fetch; storage compresses texts by at least this factor.
FETCH_BYTES = 4 << 20
COMPRESSED = 8
ROW_BYTES = 256
MOST_ROWS = 2048

SETTINGS = {
    # On a slow connection, an upload leaves minutes between two reads, and a sort takes hours before the first.
    "idle_in_transaction_session_timeout": "30min",
    "statement_timeout": "12h",
    # All rows are read, so a plan that returns the first ones early is not the best.
    "cursor_tuple_fraction": "1",
}


def read_batches(
    table: DatabaseTable, spec: ExportSpec, database: Engine, progress: Progress
) -> Generator[pa.RecordBatch]:
    """Return the rows that the spec asks for, as they are when the first one is read; at least one batch.

    Raises Rejected immediately for what the table doesn't support. Reading raises Unavailable when the database fails,
    and Cancelled once `progress` is stopped.
    """
    rows = select_rows(table, resolve_query(table, spec.query), spec, database)
    return _read_batches(table, rows, select_widest(table, spec), spec, interrupt_on_stop(database, progress))


@contextmanager
def _snapshot(database: Engine) -> Iterator[Connection]:
    """Connect; all statements in the block see the rows as they are at the first one."""
    with connect(database) as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            connection.execute(select(*(func.set_config(*each, true()) for each in SETTINGS.items())))
        else:
            driver: Any = connection.connection.driver_connection
            sqlite.add_functions(driver)
        yield connection


def _read_batches(
    table: DatabaseTable, rows: Select[Any], widest: Select[Any], spec: ExportSpec, database: Engine
) -> Generator[pa.RecordBatch]:
    with _snapshot(database) as connection:
        size = connection.scalar(widest) or 0
        fetched = max(1, min(MOST_ROWS, FETCH_BYTES // (size * COMPRESSED + ROW_BYTES)))
        with connection.execute(rows, execution_options={"yield_per": fetched}) as result:
            empty = True
            for part in result.partitions():
                empty = False
                yield _to_batch(table.outputs, list(zip(*part, strict=True)), nested=spec.encoding.format.nested)
            if empty:
                yield _to_batch(table.outputs, [()] * len(table.outputs), nested=spec.encoding.format.nested)


def _to_batch(outputs: Sequence[DatabaseOutput], values: Sequence[Sequence[Any]], *, nested: bool) -> pa.RecordBatch:
    arrays = {}
    for output, cells in zip(outputs, values, strict=True):
        arrays[output.name] = _to_array(output.kind, cells)
        if output.kind is Kind.MAYBE_JSON:
            arrays[f"{output.name}{JSON_FLAG}"] = _json_flags(cells, nested=nested)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _to_array(kind: Kind, cells: Sequence[Any]) -> pa.Array:
    """Return a column; made in polars, because pyarrow imports pandas, if installed, to convert Python values."""
    if kind is Kind.INSTANT:  # Langfuse stores milliseconds
        return pl.Series(cells, dtype=pl.Datetime("ms")).dt.replace_time_zone("UTC").to_arrow()
    return pl.Series(cells, dtype=pl.String).to_arrow().cast(pa.string())


def _json_flags(cells: Sequence[str | None], *, nested: bool) -> pa.Array:
    r"""Return which cells hold JSON; for formats that write it as text, only where it also has `\u` escapes."""
    candidates = (cell if cell is not None and (nested or "\\u" in cell) else None for cell in cells)
    return pl.Series([cell is not None and _is_json(cell) for cell in candidates], dtype=pl.Boolean).to_arrow()


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return False
    return True


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)
