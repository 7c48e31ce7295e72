"""Fixtures of the contract tests."""

from collections.abc import Iterator

import pytest

from tests.services.stacks import Stack
from tests.support.databases import Databases, open_databases


@pytest.fixture
def databases(stack: Stack) -> Iterator[Databases]:
    """The databases of a stack, with Langfuse's schema and no rows."""
    with open_databases(stack.environment()) as opened:
        yield opened
