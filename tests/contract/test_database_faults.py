"""Faults of the databases become Unavailable; errors in a statement stay bugs."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, make_url, text, update
from sqlalchemy.exc import DBAPIError

from config.errors import Cancelled, Unavailable
from config.tables import batch_exports
from pipeline.interrupt import connect, interrupt_on_stop
from pipeline.progress import Progress
from runtime.database import open_database, reading, reading_briefly, writing
from tests.support.daemons import eventually
from tests.support.exports import queue

TOUCH = update(batch_exports).values(log="x")


def touch_soon(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
    connection.execute(TOUCH)


def idle_too_long(connection: Connection, engine: Engine) -> None:
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
    connection.execute(TOUCH)
    with writing(engine) as another:
        another.execute(TOUCH)
    connection.execute(TOUCH)


def forbid_writing(connection: Any, _: object) -> None:
    connection.execute("PRAGMA query_only = 1").close()


def raise_state(connection: Connection, state: str) -> None:
    connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END $$")


@pytest.mark.parametrize(
    "state",
    ["40001", "40P01", "55P03", "25006", "57P01", "57P03", "57014", "53100", "53300", "08006", "42501", "58030"],
)
def test_a_transient_fault_is_unavailable_and_names_the_database(postgres_engine: Engine, state: str) -> None:
    for opened in (writing, reading, connect):
        with (
            pytest.raises(Unavailable, match=rf"the database failed: made up.*{state}"),
            opened(postgres_engine) as connection,
        ):
            raise_state(connection, state)


@pytest.mark.parametrize("state", ["42601", "42P01", "42703", "22001", "22P02", "23505", "XX000", "P0001"])
def test_an_error_in_a_statement_is_a_bug(postgres_engine: Engine, state: str) -> None:
    for opened in (writing, reading, connect):
        with pytest.raises(DBAPIError), opened(postgres_engine) as connection:
            raise_state(connection, state)


def test_a_row_that_langfuse_keeps_locked_is_waited_for_up_to_the_lock_timeout(postgres_engine: Engine) -> None:
    queue(postgres_engine)
    with writing(postgres_engine) as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "10s"
    with postgres_engine.begin() as langfuse:
        langfuse.execute(TOUCH)
        with pytest.raises(Unavailable, match="lock timeout"), writing(postgres_engine) as connection:
            touch_soon(connection)


def test_a_stopped_worker_loses_its_row_locks(postgres_engine: Engine) -> None:
    queue(postgres_engine)
    with writing(postgres_engine) as connection:
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "10s"
    with pytest.raises(Unavailable), writing(postgres_engine) as connection:
        idle_too_long(connection, postgres_engine)


def test_a_statement_that_is_too_slow_is_cancelled_and_the_next_transaction_is_not(postgres_engine: Engine) -> None:
    with pytest.raises(Unavailable, match="57014"), reading_briefly(postgres_engine, 0.1) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    with reading(postgres_engine) as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"


def test_a_connection_that_the_server_closes_is_unavailable(postgres_engine: Engine) -> None:
    with pytest.raises(Unavailable), connect(postgres_engine) as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_lookup_that_hangs_is_interrupted_when_the_export_stops(postgres_engine: Engine) -> None:
    progress = Progress()
    running = text("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")

    def stop() -> None:
        with postgres_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            eventually(lambda: connection.scalar(running), what="the lookup runs")
        progress.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    began = time.monotonic()
    with pytest.raises(Cancelled), connect(interrupt_on_stop(postgres_engine, progress)) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(60)")
    stopping.join()
    assert time.monotonic() - began < 30
    with pytest.raises(Cancelled), connect(interrupt_on_stop(postgres_engine, progress)):
        pytest.fail("a stopped export must not send a statement")
    with connect(postgres_engine) as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_faults_of_sqlite_are_told_apart_by_its_error_codes(tmp_path: Path) -> None:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    with pytest.raises(DBAPIError, match="no such table"), reading(opened) as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")
    event.listen(opened, "connect", forbid_writing)
    opened.dispose()
    with pytest.raises(Unavailable, match="the file of DATABASE_URL is read-only"), writing(opened) as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    opened.dispose()
