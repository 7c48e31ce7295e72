"""The main flow through PgBouncer in transaction mode, with a schema, minimal rights and a private authority."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
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
from tests.support.certificates import make_authority
from tests.support.daemons import daemon, eventually, waybill
from tests.support.grants import grant

pytestmark = pytest.mark.slow

TABLES = ("traces", "observations", "dataset_items", "audit_logs")


SCHEMA = "langfuse"


@dataclass(frozen=True)
class Pooled:
    """The settings of a stack whose database is reached through a pooler: of the tables' owner, and of the daemons."""

    owner: dict[str, str]
    daemons: dict[str, str]


@pytest.fixture
def pooled(stack: Stack, request: pytest.FixtureRequest, services_folder: Path, tmp_path: Path) -> Iterator[Pooled]:
    """A pooler with TLS by a private authority, an empty schema, and a role without rights."""
    settings = stack.environment() | QUICK
    if not settings["DATABASE_URL"].startswith("postgresql"):
        pytest.skip("SQLite has no pooler")
    postgres: Postgres = request.getfixturevalue("postgres")
    role = f"exporter_{uuid.uuid4().hex[:12]}"
    direct = open_database(load(settings).database)
    with direct.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    authority = make_authority(tmp_path)
    folder = services_folder / "pgbouncer"
    with pgbouncer.start(folder, postgres.port, "transaction", "waybill", role, authority=authority) as pooler:
        url = pooler.url(settings["DATABASE_URL"], f"schema={SCHEMA}", "pgbouncer=true", "sslaccept=strict")
        trusting = settings | {"SSL_CERT_FILE": str(authority.file)}
        yield Pooled(trusting | {"DATABASE_URL": url}, trusting | {"DATABASE_URL": url.replace("waybill@", f"{role}@")})
    with direct.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
    direct.dispose()


@pytest.fixture
def owner(pooled: Pooled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The database as its owner reaches it, with sample data, and the documented rights of the role."""
    monkeypatch.setenv("SSL_CERT_FILE", pooled.owner["SSL_CERT_FILE"])
    settings = load(pooled.owner)
    engine = build.engine(settings)
    langfuse.create_all(engine)
    migrated = waybill("migrate", environment=pooled.owner)
    assert (migrated.returncode, migrated.stderr) == (0, "")
    with build.clickhouse_client(settings) as client:
        create_clickhouse_tables(client)
        fill(client, engine, rows=ROWS)
    grant(engine, str(load(pooled.daemons).database.username), SCHEMA)
    yield engine
    engine.dispose()


def test_exports_complete_through_a_pooler(stack: Stack, pooled: Pooled, owner: Engine, tmp_path: Path) -> None:
    with daemon("consumer", tmp_path, pooled.daemons), daemon("notify", tmp_path, pooled.daemons):
        exports = [insert_export(owner, query={"tableName": table, "filter": [], "orderBy": None}) for table in TABLES]
        for export_id in exports:
            publish_request(stack, export_id)
        eventually(lambda: len(stack.mails()) == len(exports), what="an email for each export")
        doctor = waybill("doctor", environment=pooled.daemons)

    assert [read_status(owner, each) for each in exports] == ["COMPLETED"] * len(exports)
    assert doctor.returncode == 0, doctor.stdout
