"""Connects to Langfuse's Postgres, or SQLite, such that a statement is interrupted when its export is stopped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine

from config.errors import Cancelled, Unavailable
from pipeline.progress import Progress
from runtime.database import translated_faults

CANCEL_SECONDS = 10
_PROGRESS = "waybill_progress"


def interrupt_on_stop(database: Engine, progress: Progress) -> Engine:
    """Return the engine, such that stopping the export interrupts the statements on connections made by `connect`."""
    return database.execution_options(**{_PROGRESS: progress})


@contextmanager
def connect(database: Engine) -> Iterator[Connection]:
    """Connect for the block, in one transaction that only reads; raises Unavailable when the database fails in it.

    With an engine of `interrupt_on_stop`, raises Cancelled once the export is stopped.
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
    """Interrupt the connection's statement when the export is stopped, but not what runs on it after the block."""
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
