"""Keeps idle clients of ClickHouse: reading the server's settings for a new one takes longer than a small export."""

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

from pipeline.read.server import Server

FRESH_SECONDS = 60.0
"""After this time the server may be another one, or another version, so its settings must be read again."""


def _expiry() -> float:
    return time.monotonic() + FRESH_SECONDS


@dataclass(frozen=True)
class PooledClient:
    """A client, what it has just read of its server, and until when (monotonic clock) it may be used again."""

    client: Client
    server: Server = field(default_factory=Server)
    until: float = field(default_factory=_expiry)

    def close(self) -> None:
        """Close the client."""
        self.client.close()


@dataclass(frozen=True)
class ClientPool:
    """The clients that no export is using; shared by all exports, from any thread."""

    _idle: deque[PooledClient] = field(default_factory=deque)

    def take(self) -> PooledClient | None:
        """Return a client for one export alone, or None; the caller gives it back, or closes it."""
        with suppress(IndexError):
            while True:
                idle = self._idle.pop()
                if time.monotonic() < idle.until:
                    return idle
                idle.client.close()
        return None

    def give_back(self, used: PooledClient) -> None:
        """Keep a client that works for the next export; its connections are closed."""
        used.client.close_connections()
        self._idle.append(used)
