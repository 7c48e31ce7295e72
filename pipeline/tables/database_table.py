"""Declares what makes up an exported table whose rows are in Langfuse's Postgres, or in SQLite."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, FromClause

from pipeline.request import Direction, SearchType
from pipeline.tables.columns import DatabaseOutput, Filterable
from pipeline.types import Column


@dataclass(frozen=True, kw_only=True)
class DatabaseTable:
    """A table in Postgres or SQLite that can be exported; the file has the columns `outputs`.

    All values refer to `rows`. `is_current` returns the condition for the current rows of a project. `moment` is the
    business time that the cutoff applies to, `identity` the value that tells two rows of a project apart, `order` the
    table's own order, which ends with the identity. `wide` are the columns that make a row large.
    """

    name: str
    rows: FromClause
    is_current: Callable[[str], ColumnElement[bool]]
    outputs: tuple[DatabaseOutput, ...]
    filterables: tuple[Filterable, ...]
    searched: dict[SearchType, tuple[ColumnElement[str], ...]] = field(default_factory=dict)
    moment: ColumnElement[Any]
    identity: ColumnElement[str]
    order: tuple[tuple[ColumnElement[Any], Direction], ...]
    wide: tuple[ColumnElement[Any], ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the file."""
        return tuple(output.column for output in self.outputs)
