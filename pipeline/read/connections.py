"""Names where rows are read from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from pipeline.read.client_pool import Clients

Seen = Callable[[str, Mapping[str, Any]], None]


def unseen(sql: str, parameters: Mapping[str, Any]) -> None:
    """Take no notice of a statement."""


@dataclass(frozen=True)
class ClickHouse:
    """How to reach ClickHouse over HTTP; each export opens connections of its own.

    `clients` are those that know the server and wait for the next export. `seen` is called with every statement before
    it is sent, and with the values of its places.
    """

    url: str
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    clients: Clients = field(default_factory=Clients, init=False, repr=False, compare=False)
    seen: Seen = field(default=unseen, repr=False, compare=False)


@dataclass(frozen=True)
class Sources:
    """The two databases that an export may read; safe to share between exports."""

    clickhouse: ClickHouse
    database: Engine
