"""Reading with a cursor: concurrent writes, a database that hangs, and large rows."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, delete, insert, make_url, text, update

from config.errors import Cancelled
from config.tables import audit_logs, langfuse
from pipeline.progress import Progress
from pipeline.read.postgres import FETCH_BYTES, MOST_ROWS, read_batches
from pipeline.spec import ExportSpec, read_spec
from pipeline.tables.audit_logs import AUDIT_LOGS
from runtime.database import open_database
from tests.services.postgres import Postgres

ROWS = 3 * MOST_ROWS
WIDE_ROWS = 48
LOG = {"org_id": "o", "resource_type": "trace", "resource_id": "r", "action": "create", "project_id": "p"}
MAY = datetime(2026, 5, 10, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        folder = request.getfixturevalue("tmp_path")
        engine = open_database(make_url(f"sqlite:///{folder}/waybill.db"))
        langfuse.create_all(engine)
        yield engine
        engine.dispose()
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as made:
        engine = open_database(make_url(made.url.replace("postgresql:", "postgresql+psycopg:")))
        langfuse.create_all(engine)
        yield engine
        engine.dispose()


def fill(database: Engine, count: int, after: str = "") -> None:
    rows = [{**LOG, "id": f"a{number:06}", "created_at": MAY, "after": after} for number in range(count)]
    with database.begin() as connection:
        connection.execute(insert(audit_logs), rows)


def spec() -> ExportSpec:
    return read_spec(
        project_id="p",
        export_id="e",
        attempt=1,
        created_at=datetime(2026, 6, 1, tzinfo=UTC),
        query={"tableName": "audit_logs"},
        format="CSV",
    )


def test_all_rows_are_of_one_moment_while_others_write(database: Engine) -> None:
    fill(database, ROWS)
    batches = read_batches(AUDIT_LOGS, spec(), database, Progress())
    first = next(batches)
    with database.begin() as connection:
        connection.execute(update(audit_logs).where(audit_logs.c.id == f"a{ROWS - 1:06}").values(action="delete"))
        connection.execute(delete(audit_logs).where(audit_logs.c.id < f"a{ROWS - 9:06}"))
        connection.execute(insert(audit_logs).values(**LOG, id="later", created_at=MAY))

    read = [first, *batches]

    assert len(read) > 1
    assert [each for batch in read for each in batch.column("id").to_pylist()] == [f"a{n:06}" for n in range(ROWS)]
    assert {each for batch in read for each in batch.column("action").to_pylist()} == {"create"}


def test_batches_are_bounded_by_bytes(database: Engine) -> None:
    fill(database, WIDE_ROWS, after="x" * FETCH_BYTES)

    sizes = [batch.num_rows for batch in read_batches(AUDIT_LOGS, spec(), database, Progress())]

    assert sum(sizes) == WIDE_ROWS
    assert max(sizes) < WIDE_ROWS


def test_an_unfinished_reader_keeps_no_connection(database: Engine) -> None:
    fill(database, ROWS)

    batches = read_batches(AUDIT_LOGS, spec(), database, Progress())
    next(batches)
    batches.close()

    assert database.pool.status().split("Checked out connections: ")[-1].strip() == "0"
    with database.begin() as connection:
        connection.execute(delete(audit_logs))


def test_a_stop_interrupts_a_query_that_hangs(postgres: Postgres) -> None:
    with postgres.database() as made:
        engine = open_database(make_url(made.url.replace("postgresql:", "postgresql+psycopg:")))
        langfuse.create_all(engine)
        progress = Progress()
        seen = threading.Event()
        with engine.begin() as blocker:
            blocker.execute(text("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE"))

            def stop() -> None:
                while not seen.wait(0.05):
                    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                    with engine.connect() as connection:
                        if connection.scalar(waiting):
                            progress.stop()
                            return

            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(Cancelled):
                next(read_batches(AUDIT_LOGS, spec(), engine, progress))
            seen.set()
            stopper.join()
        engine.dispose()
