"""Declares what a table of the application's database is made of, where rows are read with a cursor."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, FromClause

from pipeline.request import SearchType
from pipeline.sql.postgres import Direction
from pipeline.tables.clickhouse_table import Filterable
from pipeline.types import Column, Kind


@dataclass(frozen=True)
class Field:
    """One column of the file: a text, an instant, or JSON as the database stores it."""

    name: str
    kind: Kind
    value: ColumnElement[Any]

    @property
    def column(self) -> Column:
        """The column as encoders know it."""
        return Column(self.name, self.kind)


@dataclass(frozen=True, kw_only=True)
class Relational:
    """A table in Postgres or SQLite that can be exported; the file's columns are `fields`.

    `rows` is what all values are of, and `counted` gives the condition that a project's rows meet, those that are
    not outdated. `moment` is the time that the cutoff applies to, `identity` what tells a project's rows apart, and
    `order` their own order, which ends with it. `wide` are the columns that make a row big.
    """

    name: str
    rows: FromClause
    counted: Callable[[str], ColumnElement[bool]]
    fields: tuple[Field, ...]
    filterables: tuple[Filterable, ...]
    searched: dict[SearchType, tuple[ColumnElement[str], ...]] = field(default_factory=dict)
    moment: ColumnElement[Any]
    identity: ColumnElement[str]
    order: tuple[tuple[ColumnElement[Any], Direction], ...]
    wide: tuple[ColumnElement[Any], ...]
