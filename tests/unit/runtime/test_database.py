from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Thread

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, func, insert, inspect, make_url, select
from sqlalchemy.exc import StatementError

from config.tables import application, outbox, runs, waybill
from runtime.database import open_database, reading, writing
from runtime.migrations import VERSION_TABLE, migrate


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(make_url(f"sqlite:///{tmp_path}/waybill.db"))


def test_migrations_make_what_the_tables_declare(engine: Engine) -> None:
    migrate(engine)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, waybill) == []
    engine.dispose()


def test_migrations_touch_nothing_of_the_applications(engine: Engine) -> None:
    application.create_all(engine)
    before = set(inspect(engine).get_table_names())

    migrate(engine)
    migrate(engine)

    assert set(inspect(engine).get_table_names()) - before == {*waybill.tables, VERSION_TABLE}
    engine.dispose()


def test_writers_wait_for_each_other_and_readers_for_nobody(engine: Engine) -> None:
    migrate(engine)
    values = {"topic": "t", "key": "k", "payload": "{}", "created_at": datetime.now(UTC)}

    def write() -> None:
        with writing(engine) as connection:
            count = connection.execute(select(func.count()).select_from(outbox)).scalar_one()
            connection.execute(insert(outbox).values(values | {"key": str(count)}))

    with reading(engine) as snapshot:
        assert snapshot.execute(select(func.count()).select_from(outbox)).scalar_one() == 0
        threads = [Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert snapshot.execute(select(func.count()).select_from(outbox)).scalar_one() == 0
    with reading(engine) as connection:
        assert sorted(connection.execute(select(outbox.c.key)).scalars()) == [str(number) for number in range(8)]
    engine.dispose()


def test_instants_are_kept_in_utc_and_naive_ones_refused(engine: Engine) -> None:
    migrate(engine)
    noon = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=2)))
    row = {"topic": "t", "key": "k", "payload": "{}"}

    with writing(engine) as connection:
        connection.execute(insert(outbox).values(row | {"created_at": noon}))
        assert connection.execute(select(outbox.c.created_at)).scalar_one() == datetime(2026, 11, 21, 10, tzinfo=UTC)
    with pytest.raises(StatementError, match="naive datetime"), writing(engine) as connection:
        connection.execute(insert(outbox).values(row | {"created_at": datetime(2026, 11, 21)}))  # noqa: DTZ001 (that is the test)
    engine.dispose()


def test_the_runs_know_which_failures_came_before_them() -> None:
    assert runs.c.failures.server_default is not None
