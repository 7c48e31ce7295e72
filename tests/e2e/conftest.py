"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from sqlalchemy import Engine

from cli import build
from config.settings import load
from config.tables import langfuse
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from runtime.database import open_database
from runtime.migrations import migrate
from tests.e2e.requests import ROWS
from tests.services import choice, chromium
from tests.services.stacks import Stack


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    """The stack's SQL database with Langfuse's tables and Waybill's own, all empty."""
    opened = open_database(load(stack.environment()).database)
    langfuse.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def sample_data(engine: Engine, stack: Stack) -> Engine:
    """The same database with sample data in it and in the stack's ClickHouse."""
    with build.clickhouse_client(load(stack.environment())) as client:
        create_clickhouse_tables(client)
        fill(client, engine, rows=ROWS)
    return engine


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser for one test: its driver runs an event loop in this thread, beside which no other test can run one."""
    if reason := choice.why_not("chromium"):
        pytest.skip(reason)
    with chromium.start() as started:
        yield started
