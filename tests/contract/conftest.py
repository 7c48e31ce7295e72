"""Fixtures of the contract tests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, make_url

from config.tables import langfuse
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services.postgres import Postgres
from tests.services.stacks import Stack
from tests.support.databases import Databases, open_databases


@pytest.fixture
def databases(stack: Stack) -> Iterator[Databases]:
    """The databases of a stack, with Langfuse's schema and no rows."""
    with open_databases(stack.databases()) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An SQLite and a PostgreSQL database with Langfuse's tables and Waybill's own, all empty."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_engine")
    else:
        with _migrated(make_url(f"sqlite:///{tmp_path}/waybill.db")) as opened:
            yield opened


@pytest.fixture
def postgres_engine(postgres: Postgres) -> Iterator[Engine]:
    """The same on PostgreSQL alone."""
    with postgres.database() as database:
        url = make_url(database.url).set(drivername="postgresql+psycopg")
        with _migrated(url) as opened:
            yield opened


@contextlib.contextmanager
def _migrated(url: URL) -> Iterator[Engine]:
    opened = open_database(url)
    langfuse.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()
