"""Interrupts a statement when its export stops, and binds long lists as one value."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Connection, Engine, Text, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from config.errors import Cancelled, Unavailable
from pipeline.types import Progress
from runtime.database import translated_faults

# Postgres takes it in no text, and so has no row with such an id.
NUL = "\x00"

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
        with translated_faults(), database.connect() as connection, _interrupted(connection, progress):
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


def among(column: ColumnElement[str], values: Iterable[str], database: Engine) -> ColumnElement[bool]:
    """Ask whether a column is one of some values, however many, bound as one."""
    wanted = [value for value in values if NUL not in value]
    if database.dialect.name == "postgresql":
        return column == any_(bindparam(None, wanted, type_=ARRAY(Text), unique=True))
    listed = func.json_each(json.dumps(wanted)).table_valued("value")
    return column.in_(select(listed.c.value))
