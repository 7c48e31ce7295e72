"""Waybill works behind PgBouncer, with its tables and Langfuse's in any schema."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import Engine, func, inspect, select

from cli import build
from cli.checks.database import find_problems
from config.errors import Cancelled, Unavailable
from config.labels import Channel, Outcome
from config.settings import load
from config.tables import langfuse, waybill
from consumer.job_store import ClaimPolicy, Jobs
from consumer.outbox import relay
from embedded.sample import database as sample
from embedded.sample.sql import Plan
from notify.notices import Notices
from pipeline.interrupt import connect, interrupt_on_stop
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import read_spec
from pipeline.types import OutputOptions
from runtime.clock import DatabaseClock
from runtime.database import reading
from runtime.migrations import VERSION_TABLE, migrate
from tests.services import pgbouncer
from tests.services.pgbouncer import PgBouncer
from tests.services.postgres import Database, Postgres
from tests.support.attempts import ScriptedWorker
from tests.support.daemons import eventually
from tests.support.exports import CLAIM_POLICY, NOW, claimed, queue
from tests.support.intake import FakePublisher
from tests.support.notices import completion

SCHEMA = "Langfuse's data"
"""A name that must be quoted, so that nothing finds the tables by a search path."""

THREADS = 8


@pytest.fixture(scope="module", params=["transaction", "session"])
def pooler(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, services_folder: Path
) -> Iterator[PgBouncer]:
    """PgBouncer in each of the modes that are supported; in one, the next transaction has another connection."""
    name = tmp_path_factory.mktemp("pgbouncer").name
    with pgbouncer.start(services_folder / name, postgres.port, request.param, "waybill") as running:
        yield running


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A database with an empty schema."""
    with postgres.database() as made:
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA "{SCHEMA}"')
        yield made


@pytest.fixture
def engine(pooler: PgBouncer, database: Database) -> Iterator[Engine]:
    """The tables in the schema, through the pooler."""
    url = pooler.url(database.url, f"schema={quote(SCHEMA)}", "pgbouncer=true")
    opened = build.engine(load({"DATABASE_URL": url}))
    langfuse.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


def test_the_tables_are_in_the_schema_and_the_doctor_is_content(engine: Engine) -> None:
    migrate(engine)

    with reading(engine) as connection:
        known = inspect(connection)
        assert set(known.get_table_names(SCHEMA)) == {*langfuse.tables, *waybill.tables, VERSION_TABLE}
        assert known.get_table_names("public") == []
    assert find_problems(engine) == []


def test_exports_run_at_the_same_time(engine: Engine, tmp_path: Path) -> None:
    worker = ScriptedWorker(engine, tmp_path / "files")
    worker.fenced = True
    exports = [f"export-{number}" for number in range(3 * THREADS)]
    for export_id in exports:
        queue(engine, export_id)

    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(lambda each: worker.run(claimed(worker.jobs, export_id=each)), exports))

    assert outcomes == [Outcome.COMPLETED] * len(exports)
    publisher = FakePublisher()
    assert relay(engine, publisher, worker.now, worker.metrics) == len(exports)  # type: ignore[arg-type] # stands in for Kafka
    assert {each.key for each in publisher.sent} == {each.encode() for each in exports}


def test_the_slots_of_a_project_are_counted_under_a_lock(engine: Engine) -> None:
    policy = ClaimPolicy(lease=CLAIM_POLICY.lease, project_slots=1, completions_topic="export-completions")
    jobs = Jobs(engine, policy)
    for number in range(THREADS):
        queue(engine, f"export-{number}")
    found = [jobs.find("project-1", f"export-{number}") for number in range(THREADS)]

    with ThreadPoolExecutor(THREADS) as threads:
        claims = list(threads.map(lambda job: jobs.claim(job, "worker", NOW), found))

    assert sum(hasattr(each, "attempt") for each in claims) == 1


def test_a_completion_becomes_one_notice(engine: Engine) -> None:
    minute = timedelta(minutes=1)
    store = Notices(engine, retry_for=24 * 60 * minute, first_delay=minute, lease=minute)

    assert store.record(completion(), NOW)
    assert not store.record(completion(), NOW)
    assert [each.export_id for each in store.find_due(NOW, Channel.MAIL, limit=9)] == ["export-1"]


@pytest.mark.parametrize("table", ["audit_logs", "dataset_items"])
def test_rows_are_read_through_a_cursor(engine: Engine, table: str) -> None:
    with engine.begin() as connection:
        sample.fill_shared(connection, ["demo"])
        sample.fill_project(connection, Plan("demo", 0, 500, 1000, 1))
    spec = read_spec(
        project_id="demo",
        export_id="e",
        attempt=1,
        created_at=NOW,
        query={"tableName": table, "filter": None, "orderBy": None},
        format="CSV",
        output=OutputOptions(),
    )

    with open_table(spec, Sources(ClickHouse("http://127.0.0.1:1"), engine), Progress()) as opened:
        ids = [each for batch in opened.enrich(opened.batches) for each in batch.column("id").to_pylist()]

    assert len(ids) == len(set(ids)) > 40


def test_the_clock_of_the_database_is_read(engine: Engine) -> None:
    assert abs(DatabaseClock(engine).compare()) < timedelta(minutes=1)


def test_a_statement_is_interrupted_when_its_export_is_stopped(engine: Engine, database: Database) -> None:
    progress = Progress()

    def sleeps() -> bool:
        with psycopg.connect(database.url) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%pg_sleep%%' AND state = 'active' AND pid <> %s",
                (connection.info.backend_pid,),
            )
            return found.fetchone() is not None

    def sleep() -> None:
        with pytest.raises(Cancelled), connect(interrupt_on_stop(engine, progress)) as connection:
            connection.execute(select(func.pg_sleep(60)))

    with ThreadPoolExecutor(1) as thread:
        sleeping = thread.submit(sleep)
        eventually(sleeps, what="the statement runs")
        progress.stop()
        sleeping.result()


def test_a_startup_parameter_of_the_url_is_named_when_the_pooler_refuses_it(
    pooler: PgBouncer, database: Database
) -> None:
    url = pooler.url(database.url, "options=-cwork_mem=64MB")
    opened = build.engine(load({"DATABASE_URL": url}))

    with pytest.raises(Unavailable, match="pooler refuses a startup parameter: remove `options`"), reading(opened):
        pytest.fail("there is no connection")


def test_the_doctor_names_a_pool_that_allows_no_transactions(
    postgres: Postgres, database: Database, services_folder: Path
) -> None:
    direct = build.engine(load({"DATABASE_URL": database.url}))
    langfuse.create_all(direct)
    migrate(direct)
    direct.dispose()
    with pgbouncer.start(services_folder / "statements", postgres.port, "statement", "waybill") as running:
        engine = build.engine(load({"DATABASE_URL": running.url(database.url)}))
        with pytest.raises(Unavailable, match="allows no transactions: set pool_mode of this database to transaction"):
            find_problems(engine)
        engine.dispose()
