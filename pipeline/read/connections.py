"""Declares the databases that rows are read from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Engine

from pipeline.read.client_pool import ClientPool

OnStatement: TypeAlias = Callable[[str, Mapping[str, Any]], None]


def ignore_statement(sql: str, parameters: Mapping[str, Any]) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class ClickHouse:
    """How to connect to ClickHouse over HTTP; each export has its own connections.

    `pool` keeps idle clients for the next export. `on_statement` is called with each statement and its parameters
    before it is sent.
    """

    url: str
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    pool: ClientPool = field(default_factory=ClientPool, init=False, repr=False, compare=False)
    on_statement: OnStatement = field(default=ignore_statement, repr=False, compare=False)


@dataclass(frozen=True)
class Sources:
    """The two databases that an export may read; shared by all exports, from any thread."""

    clickhouse: ClickHouse
    database: Engine
