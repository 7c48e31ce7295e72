"""Keeps clients of ClickHouse that know their server: to learn its settings takes longer than a small export."""

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

FRESH_SECONDS = 60.0
"""A server may be another one, or another version, after so long; what was learned of it then is learned anew."""


@dataclass(frozen=True)
class Connected:
    """A client, and until when (on the monotonic clock) it may be used for another export."""

    client: Client
    until: float


def connected(client: Client) -> Connected:
    """Say of a client that it has learned its server's settings now."""
    return Connected(client, time.monotonic() + FRESH_SECONDS)


@dataclass(frozen=True)
class Clients:
    """Clients that no export uses at the moment; safe to share between exports."""

    _idle: deque[Connected] = field(default_factory=deque)

    def take(self) -> Connected | None:
        """Take one for an export alone, if there is one; it is then to be given back, or closed."""
        with suppress(IndexError):
            while True:
                idle = self._idle.pop()
                if time.monotonic() < idle.until:
                    return idle
                idle.client.close()
        return None

    def give_back(self, used: Connected) -> None:
        """Keep one that is well for the next export; its connections are closed."""
        used.client.close_connections()
        self._idle.append(used)
