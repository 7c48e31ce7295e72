"""Clients of the embedded stack of the session."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest

from embedded.stack import Stack

Connect = Callable[..., Any]


@pytest.fixture
def connect(embedded: Stack) -> Iterator[Connect]:
    """A function that opens clickhouse-connect clients, which are closed after the test."""
    address = urlsplit(embedded.clickhouse)
    opened: list[Any] = []

    def client(**options: Any) -> Any:
        opened.append(
            clickhouse_connect.get_client(
                host=address.hostname, port=address.port, autogenerate_session_id=False, **options
            )
        )
        return opened[-1]

    yield client
    for each in opened:
        each.close()


@pytest.fixture
def database(connect: Connect) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    server = connect()
    server.command(f"CREATE DATABASE {name}")
    yield name
    server.command(f"DROP DATABASE {name}")


@pytest.fixture
def client(connect: Connect, database: str) -> Any:
    """A client whose database is empty."""
    return connect(database=database)
