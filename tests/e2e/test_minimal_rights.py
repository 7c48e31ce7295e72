"""The main flow with exactly the rights in the database that docs/install.md lists."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from config.tables import batch_exports, runs
from tests.e2e.requests import QUICK, insert_export, publish_request, read_status
from tests.services.stacks import Stack
from tests.support.daemons import daemon, eventually, waybill
from tests.support.grants import grant

pytestmark = pytest.mark.slow

TABLES = ("traces", "observations", "sessions", "scores", "dataset_run_items", "dataset_items", "audit_logs")


def test_the_main_flow_needs_no_other_rights_than_the_documented_ones(
    stack: Stack, sample_data: Engine, tmp_path: Path
) -> None:
    if sample_data.dialect.name != "postgresql":
        pytest.skip("SQLite has no roles")
    role = f"exporter_{uuid.uuid4().hex[:12]}"
    with sample_data.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    grant(sample_data, role)
    environment = stack.environment() | QUICK
    environment["DATABASE_URL"] = environment["DATABASE_URL"].replace("waybill@", f"{role}@")
    try:
        with daemon("consumer", tmp_path, environment), daemon("notify", tmp_path, environment):
            exports = [
                insert_export(sample_data, query={"tableName": table, "filter": [], "orderBy": None})
                for table in TABLES
            ]
            exports.append(insert_export(sample_data, query={"tableName": "tracez", "filter": [], "orderBy": None}))
            for export_id in exports:
                publish_request(stack, export_id)
            eventually(lambda: len(stack.mails()) == len(exports), what="an email for each export")
        cancelled = insert_export(sample_data)
        assert waybill("cancel", "demo", cancelled, environment=environment).returncode == 0
        assert waybill("retry", "demo", cancelled, environment=environment).returncode == 0
    finally:
        with sample_data.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))

    assert [read_status(sample_data, each) for each in exports] == ["COMPLETED"] * len(TABLES) + ["FAILED"]
    with sample_data.connect() as connection:
        attempts = connection.execute(select(runs.c.attempt)).scalars().all()
        logs = connection.execute(select(batch_exports.c.log).where(batch_exports.c.id.in_(exports[:-1]))).scalars()
        assert set(logs) == {None}
    assert attempts == [1] * len(exports)
