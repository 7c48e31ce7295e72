"""Declares what makes up an exported table whose rows are in ClickHouse."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, FromClause, true

from pipeline.enrich.comments import COMMENTS
from pipeline.request import OrderBy, SearchType
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import Source, View
from pipeline.tables.columns import AnyFilterable, Join, Output
from pipeline.types import Column, Kind

Enricher: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClickHouseTable:
    """A table in ClickHouse that can be exported.

    Rows: `source` is where they are read from, `rows` the alias of that source, or the name of the view, that all
    values refer to; `only` is a condition on all of them. `moment` is the business time that the cutoff applies to.
    `fallback` is read instead where the project has no rows in the source, `from_events` where the query asks for the
    events table. `reads_events`: the rows are made of events, which may be on another server.

    Columns: the file has `outputs`, then the comments on objects of the type `comments_on`, then one column per score
    name of `scores`. `enricher_inputs` are read besides for `enrichers`, each made for a database and a project.
    `search_joins` are what searches need besides the joins of the outputs. `wide` are the columns that make a row
    large.

    Order: `order` is the table's own, in which the server can read; it ends with the row's identity. `default_order`
    applies where the query names none.

    A table equals only itself, because SQLAlchemy's comparisons of values are expressions.
    """

    name: str
    source: Source | View
    rows: FromClause
    only: ColumnElement[bool] = field(default_factory=true)
    outputs: tuple[Output, ...]
    enricher_inputs: tuple[Output, ...] = ()
    search_joins: tuple[Join, ...] = ()
    filterables: tuple[AnyFilterable, ...]
    searched: dict[SearchType, tuple[ColumnElement[str], ...]] = field(default_factory=dict)
    moment: ColumnElement[Any]
    default_order: OrderBy | None = None
    order: tuple[ColumnElement[Any], ...]
    wide: tuple[ColumnElement[Any], ...]
    enrichers: tuple[Callable[[Engine, str], Enricher], ...] = ()
    comments_on: str | None = None
    scores: tuple[ScoreLevel, ...] = ()
    fallback: "ClickHouseTable | None" = None
    from_events: "ClickHouseTable | None" = None
    reads_events: bool = False

    @property
    def identity(self) -> ColumnElement[Any]:
        """The value that tells two rows of a project apart."""
        return self.order[-1]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that every file of the table has; those of scores follow."""
        comments = [Column(COMMENTS, Kind.JSON)] if self.comments_on else []
        return (*(output.column for output in self.outputs), *comments)
