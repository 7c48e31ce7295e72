"""The main flow through PgBouncer in transaction mode, with all tables in a schema of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from cli import build
from config.settings import load
from config.tables import langfuse
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from runtime.database import open_database
from tests.e2e.requests import QUICK, ROWS, insert_export, publish_request, read_status
from tests.services import pgbouncer
from tests.services.postgres import Postgres
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill

pytestmark = pytest.mark.slow

TABLES = ("traces", "observations", "dataset_items", "audit_logs")


@pytest.fixture
def environment(stack: Stack, request: pytest.FixtureRequest, services_folder: Path) -> Iterator[dict[str, str]]:
    """The settings of a stack whose database is reached through the pooler."""
    settings = stack.environment() | QUICK
    if not settings["DATABASE_URL"].startswith("postgresql"):
        pytest.skip("SQLite has no pooler")
    postgres: Postgres = request.getfixturevalue("postgres")
    direct = open_database(load(settings).database)
    with direct.begin() as connection:
        connection.execute(text("CREATE SCHEMA langfuse"))
    direct.dispose()
    with pgbouncer.start(services_folder / "pgbouncer", postgres.port, "transaction", "waybill") as pooler:
        url = pooler.url(settings["DATABASE_URL"], "schema=langfuse", "pgbouncer=true")
        yield settings | {"DATABASE_URL": url}


@pytest.fixture
def pooled(environment: dict[str, str]) -> Iterator[Engine]:
    settings = load(environment)
    engine = build.engine(settings)
    langfuse.create_all(engine)
    with build.clickhouse_client(settings) as client:
        create_clickhouse_tables(client)
        fill(client, engine, rows=ROWS)
    yield engine
    engine.dispose()


def test_exports_complete_through_a_pooler(
    stack: Stack, environment: dict[str, str], pooled: Engine, tmp_path: Path
) -> None:
    migrated = waybill("migrate", environment=environment)
    assert (migrated.returncode, migrated.stderr) == (0, "")

    with daemon("consumer", tmp_path, environment), daemon("notify", tmp_path, environment):
        exports = [insert_export(pooled, query={"tableName": table, "filter": [], "orderBy": None}) for table in TABLES]
        for export_id in exports:
            publish_request(stack, export_id)
        eventually(lambda: len(stack.mails()) == len(exports), what="an email for each export")
        doctor = waybill("doctor", environment=environment)

    assert [read_status(pooled, each) for each in exports] == ["COMPLETED"] * len(exports)
    assert doctor.returncode == 0, doctor.stdout
