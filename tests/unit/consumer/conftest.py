"""Fixtures for the tests of the consumer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from config.tables import langfuse
from runtime.database import open_database
from runtime.migrations import migrate


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with Langfuse's tables and ours."""
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    langfuse.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()
