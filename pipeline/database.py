"""Reads the application's relational database: faults named by what to do about them, long lists bound as one value."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Connection, Engine, Text, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from config.errors import Cancelled, Unavailable
from pipeline.types import Progress

# Postgres takes it in no text, and so has no row with such an id.
NUL = "\x00"

# SQLSTATEs, whole or by their class, that say nothing about our statement: connection lost, authorization, rolled back
# (serialization, deadlock), out of resources, not in the right state (locked), operator's doing (shutdown, timeout),
# system error; and read-only, idle for too long, no such database, no permission.
_PASSING = ("08", "28", "40", "53", "55", "57", "58", "25006", "25P03", "3D000", "42501")
_SQLITE_OURS = ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_MISUSE", "SQLITE_RANGE")

CANCEL_SECONDS = 10
_PROGRESS = "waybill_progress"


def stoppable(database: Engine, progress: Progress) -> Engine:
    """Return the engine such that a stop of the export interrupts what is asked over `connected`."""
    return database.execution_options(**{_PROGRESS: progress})


@contextmanager
def connected(database: Engine) -> Iterator[Connection]:
    """Give a connection for the block; raises Unavailable when the database fails in it.

    Of a `stoppable` engine, raises Cancelled once the export is stopped.
    """
    progress: Progress = database.get_execution_options().get(_PROGRESS) or Progress()
    try:
        with faults(), database.connect() as connection, _interrupted(connection, progress):
            yield connection
    except Unavailable as error:
        if progress.stopped:
            raise Cancelled from error
        raise


@contextmanager
def _interrupted(connection: Connection, progress: Progress) -> Iterator[None]:
    """Interrupt what runs on the connection when the export is stopped, but not what others run on it later."""
    driver: Any = connection.connection.driver_connection
    lock = threading.Lock()
    ours = True

    def interrupt() -> None:
        with lock:
            if ours:
                _interrupt(driver)

    progress.on_stop(interrupt)
    try:
        if progress.stopped:
            raise Cancelled
        yield
    finally:
        progress.forget(interrupt)
        with lock:
            ours = False


def _interrupt(driver: Any) -> None:
    if isinstance(driver, psycopg.Connection):
        with suppress(psycopg.Error):
            driver.cancel_safe(timeout=CANCEL_SECONDS)
    else:
        driver.interrupt()


@contextmanager
def faults() -> Iterator[None]:
    """Raise Unavailable when the database fails in the block; what it says of our own statements stays a bug."""
    try:
        yield
    except DBAPIError as error:
        if _passes(error):
            raise Unavailable(f"the database failed: {_in_short(error)}") from error
        raise
    except PoolExhausted as error:
        raise Unavailable(f"the database failed: {error}") from error


def _passes(error: DBAPIError) -> bool:
    """Say whether it is the database that failed, so that the same may succeed later; else our statement is wrong."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return bool(state.startswith(_PASSING))
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return not name.startswith(_SQLITE_OURS)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def _in_short(error: DBAPIError) -> str:
    """Give the first line of what the database said, with the SQLSTATE where it named one."""
    said = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    state = getattr(error.orig, "sqlstate", None)
    return f"{said[0]} ({state})" if state else said[0]


def among(column: ColumnElement[str], values: Iterable[str], database: Engine) -> ColumnElement[bool]:
    """Ask whether a column is one of some values, however many, bound as one."""
    wanted = [value for value in values if NUL not in value]
    if database.dialect.name == "postgresql":
        return column == any_(bindparam(None, wanted, type_=ARRAY(Text), unique=True))
    listed = func.json_each(json.dumps(wanted)).table_valued("value")
    return column.in_(select(listed.c.value))
