from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import Connection, Engine, QueuePool, create_engine, func, insert, make_url, select
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from config.errors import Unavailable
from config.tables import outbox
from runtime.database import open_database, reading, writing
from runtime.migrations import migrate

Opener = Callable[[Engine], AbstractContextManager[Connection]]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(make_url(f"sqlite:///{tmp_path}/waybill.db"))


def test_writers_wait_for_each_other_and_readers_wait_for_none(engine: Engine) -> None:
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


@pytest.mark.parametrize("opened", [reading, writing])
def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path, opened: Opener) -> None:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/missing/waybill.db"))

    with pytest.raises(Unavailable, match="the database failed: unable to open"), opened(engine):
        pytest.fail("there is no connection")


@pytest.mark.parametrize("opened", [reading, writing])
def test_an_error_in_a_statement_is_not_translated(engine: Engine, opened: Opener) -> None:
    with pytest.raises(OperationalError, match="no such table"), opened(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")
    engine.dispose()


def test_a_violated_constraint_is_not_translated_and_nothing_is_written(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")

    def write_twice() -> None:
        with writing(engine) as connection:
            for _ in range(2):
                connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")

    with pytest.raises(IntegrityError):
        write_twice()
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM numbers").scalar_one() == 0
    engine.dispose()


def test_an_exhausted_pool_is_unavailable(tmp_path: Path) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path}/waybill.db", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0
    )

    with reading(engine), pytest.raises(Unavailable, match="the database failed: all connections"), reading(engine):
        pytest.fail("the only connection is in use")
    engine.dispose()


def test_instants_are_stored_in_utc_and_naive_ones_are_refused(engine: Engine) -> None:
    migrate(engine)
    noon = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=2)))
    row = {"topic": "t", "key": "k", "payload": "{}"}

    with writing(engine) as connection:
        connection.execute(insert(outbox).values(row | {"created_at": noon}))
        assert connection.execute(select(outbox.c.created_at)).scalar_one() == datetime(2026, 11, 21, 10, tzinfo=UTC)
    with pytest.raises(StatementError, match="naive datetime"), writing(engine) as connection:
        connection.execute(insert(outbox).values(row | {"created_at": datetime(2026, 11, 21)}))  # noqa: DTZ001 (that is the test)
    engine.dispose()
