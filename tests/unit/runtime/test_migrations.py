from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, make_url

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


def test_the_number_of_earlier_failures_has_a_default() -> None:
    assert runs.c.failures.server_default is not None
