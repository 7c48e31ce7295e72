"""Fixtures of the contract tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from runtime.database import open_database
from tests.services.postgres import Postgres
from tests.services.stacks import Stack
from tests.support.databases import Databases, open_databases
from tests.support.sqlite import create_all_tables, open_copy


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
        opened = open_copy(tmp_path / "waybill.db", create_all_tables)
        yield opened
        opened.dispose()


@pytest.fixture
def postgres_engine(postgres: Postgres) -> Iterator[Engine]:
    """The same on PostgreSQL alone."""
    with postgres.database() as database:
        url = make_url(database.url).set(drivername="postgresql+psycopg")
        opened = open_database(url)
        create_all_tables(opened)
        yield opened
        opened.dispose()
