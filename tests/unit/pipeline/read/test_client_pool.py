"""Clients wait for the next export for as long as what they know of their server is fresh."""

import time
from dataclasses import dataclass, field
from typing import Any

from pipeline.read.client_pool import ClientPool, PooledClient


@dataclass
class Line:
    """Stands in for a client, and notes what is asked of it."""

    asked: list[str] = field(default_factory=list)

    def close_connections(self) -> None:
        self.asked.append("close_connections")

    def close(self) -> None:
        self.asked.append("close")


def test_one_that_was_given_back_is_taken_once_and_has_no_connections() -> None:
    client: Any = Line()
    clients, used = ClientPool(), PooledClient(client)

    clients.give_back(used)

    assert client.asked == ["close_connections"]
    assert clients.take() is used
    assert clients.take() is None


def test_one_that_has_known_its_server_for_too_long_is_closed() -> None:
    client: Any = Line()
    clients, fresh, old = ClientPool(), PooledClient(client), PooledClient(client, until=time.monotonic())
    clients.give_back(fresh)
    clients.give_back(old)

    assert clients.take() is fresh
    assert client.asked == ["close_connections", "close_connections", "close"]
