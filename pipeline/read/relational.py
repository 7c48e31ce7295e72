"""Reads the rows of a table in Postgres or SQLite through a cursor, in one snapshot, as record batches."""

import json
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import polars as pl
import psycopg
import pyarrow as pa
from sqlalchemy import Connection, Engine, Select, func, select, true

from pipeline.database import connected
from pipeline.errors import Cancelled, Unavailable
from pipeline.query import relational
from pipeline.read import sqlite
from pipeline.spec import ExportSpec
from pipeline.tables.relational import Field, Relational
from pipeline.types import JSON_FLAG, Kind, Progress

# What one fetch may bring; storage compresses texts, by this factor at least.
FETCH_BYTES = 4 << 20
COMPRESSED = 8
ROW_BYTES = 256
MOST_ROWS = 2048
FEWEST_ROWS = 16
CANCEL_SECONDS = 10

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
    return _batches(table, rows, widest, spec, _Source(database, progress))


class _Source:
    """The database, and the way to stop what it is asked."""

    def __init__(self, database: Engine, progress: Progress) -> None:
        self._database = database
        self._progress = progress

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Connect, and see the rows as they are at the first statement for as long as the block lasts."""
        try:
            with connected(self._database) as connection, self._stoppable(connection):
                if connection.dialect.name == "postgresql":
                    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                    connection.execute(select(*(func.set_config(*each, true()) for each in SETTINGS.items())))
                else:
                    sqlite.teach(_driver(connection))
                yield connection
        except Unavailable as error:
            if self._progress.stopped:
                raise Cancelled from error
            raise

    @contextmanager
    def _stoppable(self, connection: Connection) -> Iterator[None]:
        """Interrupt what runs on the connection when the export is stopped, but not what others run on it later."""
        driver = _driver(connection)
        lock = threading.Lock()
        ours = True

        def interrupt() -> None:
            with lock:
                if ours:
                    _interrupt(driver)

        self._progress.on_stop(interrupt)
        try:
            if self._progress.stopped:
                raise Cancelled
            yield
        finally:
            with lock:
                ours = False


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _interrupt(driver: Any) -> None:
    if isinstance(driver, psycopg.Connection):
        with suppress(psycopg.Error):
            driver.cancel_safe(timeout=CANCEL_SECONDS)
    else:
        driver.interrupt()


def _batches(
    table: Relational, rows: Select[Any], widest: Select[Any], spec: ExportSpec, source: _Source
) -> Generator[pa.RecordBatch]:
    with source.snapshot() as connection:
        size = connection.scalar(widest) or 0
        fetched = max(FEWEST_ROWS, min(MOST_ROWS, FETCH_BYTES // (size * COMPRESSED + ROW_BYTES)))
        with connection.execute(rows, execution_options={"yield_per": fetched}) as result:
            for part in result.partitions():
                yield _batch(table.fields, list(zip(*part, strict=True)), nested=spec.nested)


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
