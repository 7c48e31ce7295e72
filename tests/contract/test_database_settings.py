"""Waybill works under any settings that a role or a database may have."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from config.tables import langfuse
from consumer.job_store import Jobs
from runtime.clock import DatabaseClock
from runtime.database import open_database, reading
from runtime.migrations import migrate
from tests.services.postgres import Postgres
from tests.support.exports import CLAIM_POLICY, NOW, claimed, job_of, queue, row_of

FIRST_AND_LAST = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
SETTINGS = [
    {"DateStyle": "SQL, DMY"},
    {"DateStyle": "German"},
    {"TimeZone": "Asia/Tokyo"},
    {"client_encoding": "LATIN1"},
    {"IntervalStyle": "sql_standard", "bytea_output": "escape", "extra_float_digits": "0"},
]


@pytest.fixture(params=SETTINGS, ids=str)
def engine(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Engine]:
    """A database with unusual settings."""
    with postgres.database() as database:
        url = make_url(database.url)
        with psycopg.connect(database.url, autocommit=True) as connection:
            for name, value in request.param.items():
                connection.execute(f"ALTER DATABASE {url.database} SET {name} = '{value}'".encode())
        opened = open_database(url.set(drivername="postgresql+psycopg"))
        langfuse.create_all(opened)
        migrate(opened)
        yield opened
        opened.dispose()


def test_times_and_texts_are_read_and_written(engine: Engine) -> None:
    jobs = Jobs(engine, CLAIM_POLICY)
    queue(engine)

    ahead = DatabaseClock(engine).compare()
    jobs.reject(claimed(jobs), "日本語 \U0001f600", NOW)

    assert abs(ahead) < timedelta(minutes=1)
    assert job_of(jobs).created_at == NOW
    assert row_of(engine)["log"] == "日本語 \U0001f600"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("infinity", FIRST_AND_LAST[1]),
        ("-infinity", FIRST_AND_LAST[0]),
        ("4713-01-01 00:00:00 BC", FIRST_AND_LAST[0]),
        ("294276-12-31", FIRST_AND_LAST[1]),
        ("0001-01-01", FIRST_AND_LAST[0]),
        ("2026-02-03 04:05:06.789", datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)),
    ],
)
def test_any_time_of_postgres_is_read(postgres_engine: Engine, stored: str, read: datetime) -> None:
    with reading(postgres_engine) as connection:
        both = connection.execute(text(f"SELECT '{stored}'::timestamp, '{stored}'::timestamptz")).one()

    assert both == (read.replace(tzinfo=None), read)
