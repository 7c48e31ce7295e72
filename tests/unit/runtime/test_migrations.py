from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, inspect, make_url, select

from config.tables import langfuse, runs, waybill
from runtime.database import open_database
from runtime.migrations import VERSION_TABLE, migrate


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(make_url(f"sqlite:///{tmp_path}/waybill.db"))


def test_migrations_create_the_declared_tables(engine: Engine) -> None:
    migrate(engine)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, waybill) == []
    engine.dispose()


def test_migrations_change_none_of_langfuses_tables(engine: Engine) -> None:
    langfuse.create_all(engine)
    before = set(inspect(engine).get_table_names())

    migrate(engine)
    migrate(engine)

    assert set(inspect(engine).get_table_names()) - before == {*waybill.tables, VERSION_TABLE}
    engine.dispose()


def test_a_run_of_the_version_before_can_be_written(engine: Engine) -> None:
    migrate(engine)
    now = datetime(2026, 1, 1, tzinfo=UTC)

    with engine.begin() as connection:
        values = {"export_id": "e", "attempt": 1, "project_id": "p", "worker": "w"}
        connection.execute(insert(runs).values(**values, claimed_at=now, heartbeat_at=now, lease_until=now))
        assert connection.execute(select(runs.c.ignored)).scalar_one() is None
    engine.dispose()


def test_the_number_of_earlier_failures_has_a_default() -> None:
    assert runs.c.failures.server_default is not None
