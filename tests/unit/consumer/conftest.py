"""Fixtures for the tests of the consumer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.sqlite import create_all_tables, open_copy


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with Langfuse's tables and ours."""
    opened = open_copy(tmp_path / "jobs.db", create_all_tables)
    yield opened
    opened.dispose()
