"""Declares how a database is opened, and the two kinds of transaction: one that reads, one that writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

BUSY_SECONDS = 10
SILENT_SECONDS = 60
"""A connection whose other end says nothing for so long is dead."""

_WRITES = "waybill_writes"


def open_database(url: URL) -> Engine:
    """Open an engine for the application's database; connects when first used.

    SQLite is set up for several processes: write-ahead log, and a wait for the lock instead of an error.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        connect_args={
            "application_name": "waybill",
            "connect_timeout": BUSY_SECONDS,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": SILENT_SECONDS * 1000,
            "prepare_threshold": None,  # a pooler in between may give every transaction another connection
        },
    )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that may write, committed at the end; on SQLite it is the only one.

    It waits for rows that others hold for 10 s at most, then fails as when the database is away. Should this process
    stand still, Postgres takes the rows that it holds away from it after as long.
    """
    with engine.execution_options(**{_WRITES: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            limits = ("lock_timeout", "idle_in_transaction_session_timeout")
            connection.exec_driver_sql("; ".join(f"SET LOCAL {each} = '{BUSY_SECONDS}s'" for each in limits))
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection that only reads, and keeps nobody from writing; on Postgres each statement stands alone."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")  # saves asking for BEGIN and ROLLBACK
    with engine.connect() as connection:
        yield connection


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin late, and only for some statements
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later can't wait for the lock: it must take it at once.
    immediate = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
