"""Declares the databases that rows are read from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Engine

from pipeline.read.clickhouse_settings import Switch
from pipeline.read.client_pool import ClientPool
from pipeline.sql.statements import CompiledStatements

OnStatement: TypeAlias = Callable[[str, Mapping[str, Any]], None]


def ignore_statement(sql: str, parameters: Mapping[str, Any]) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Tuning:
    """Settings of statements that an installation may need: None and AUTO leave them to Waybill.

    `lazy_materialization` and `top_k_through_join` switch optimizations of the server on or off; AUTO switches them off
    where a version has a bug. `group_by_bytes` is the memory that a GROUP BY may take before it spills.
    """

    lazy_materialization: Switch = Switch.AUTO
    top_k_through_join: Switch = Switch.AUTO
    group_by_bytes: int | None = None
    condition_cache: bool | None = None


@dataclass(frozen=True)
class ClickHouse:
    """How to connect to ClickHouse over HTTP; each export has its own connections.

    `pool` keeps idle clients for the next export, `statements` compiled statements, and `scarce` the ids of exports
    that the server had too little memory for. `on_statement` is called with each statement and its parameters before
    it is sent.
    """

    url: str
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    tuning: Tuning = field(default_factory=Tuning)
    pool: ClientPool = field(default_factory=ClientPool, init=False, repr=False, compare=False)
    statements: CompiledStatements = field(default_factory=CompiledStatements, init=False, repr=False, compare=False)
    scarce: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    on_statement: OnStatement = field(default=ignore_statement, repr=False, compare=False)


@dataclass(frozen=True)
class Sources:
    """The databases that an export may read; shared by all exports, from any thread.

    Tables made of events are read from `events` if it is given, all others in ClickHouse from `clickhouse`.
    """

    clickhouse: ClickHouse
    database: Engine
    events: ClickHouse | None = None

    def choose(self, *, events: bool) -> ClickHouse:
        """Return where a table is read from."""
        return self.events if events and self.events is not None else self.clickhouse
