"""Declares what a table is made of: its file's columns, where they come from, and what can be asked of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, FromClause, Select, true

from pipeline.request import OrderBy, SearchType
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import Source, View
from pipeline.types import Column, Kind

Asked = Literal["string", "stringOptions", "datetime", "number", "boolean", "arrayOptions", "stringObject"]
AskedOfScores = Literal["numberObject", "categoryOptions", "booleanObject", "scores"]

Enricher = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Sent:
    """Rows of the application's database that a ClickHouse statement reads, as a temporary table sent with it.

    `structure` is the table's columns with their ClickHouse types; `statement` selects the rows for a project, as the
    database takes it.
    """

    name: str
    structure: str
    statement: Callable[[str, Engine], Select[Any]]


@dataclass(frozen=True)
class Related:
    """A narrow table made for one export, with one row at most for a row of the table.

    `rows` gives it for a project and a cutoff: a column `<name>_key` that equals `on`, and columns that values refer to
    by name alone, so their names must be nowhere else. It is joined only where an output, a filter or the order needs
    it; a row that has nothing there gets the default of each column's type, null where that is nullable.
    """

    name: str
    on: ColumnElement[Any]
    rows: Callable[[str, datetime], Select[Any]]
    sent: Sent | None = None


@dataclass(frozen=True)
class Output:
    """One column of the file; `nested` is the value for formats that carry JSON values, where it differs.

    Without a value it is added by an enricher. `of` is the related table that the value is of.
    """

    name: str
    kind: Kind
    value: ColumnElement[Any] | None
    nested: ColumnElement[Any] | None = None
    of: Related | None = None

    @property
    def column(self) -> Column:
        """The column as encoders know it."""
        return Column(self.name, self.kind)


@dataclass(frozen=True)
class Filterable:
    """A column that filters and orderBy may name, by id or by display name.

    `day` is the value's day as far as the table is sorted by it, which lets the server skip days, and read in order.
    `of` is the related table that the value is of. `places` are those of a decimal number, 0 for an integer; floating
    point has none. `full_text` says that filters may match its words.
    """

    id: str
    names: tuple[str, ...]
    type: Asked
    value: ColumnElement[Any]
    day: ColumnElement[Any] | None = None
    of: Related | None = None
    places: int | None = None
    full_text: bool = False

    @property
    def sortable(self) -> bool:
        """Whether the column has one value that can be put in order."""
        return self.type not in {"arrayOptions", "stringObject"}


@dataclass(frozen=True)
class OfScores:
    """The scores of a row, by name, which only filters may name; `scores` takes what its filter is of."""

    id: str
    names: tuple[str, ...]
    type: AskedOfScores
    scored: tuple[ScoreLevel, ...]
    sortable: Literal[False] = False


@dataclass(frozen=True)
class OfComments:
    """The texts of the comments on a row, which only filters may name; `key` is what the comments name the row by."""

    id: str
    names: tuple[str, ...]
    object_type: str
    key: ColumnElement[str]
    type: Literal["string"] = "string"
    sortable: Literal[False] = False


class At(Protocol):
    """Selects the keys of the rows at a place, from 1, of their traces."""

    def __call__(self, project_id: str, cutoff: datetime, place: int, *, from_end: bool) -> Select[Any]:
        """Give the statement for a project's rows before a cutoff."""


@dataclass(frozen=True)
class OfPlace:
    """The place of a row in its trace, which only filters may name; `key` is what `at` knows the row by."""

    id: str
    names: tuple[str, ...]
    key: ColumnElement[str]
    root: ColumnElement[bool]
    at: At
    type: Literal["positionInTrace"] = "positionInTrace"
    sortable: Literal[False] = False


@dataclass(frozen=True)
class OfMembers:
    """The metadata of what a row is made of, which only filters may name; one member of a row is enough to meet them.

    `with_member` selects, in a project, the `key` of each row that has a member whose metadata meets a condition.
    """

    id: str
    names: tuple[str, ...]
    key: ColumnElement[str]
    with_member: Callable[[str, Callable[[ColumnElement[Any]], ColumnElement[bool]]], Select[Any]]
    type: Literal["stringObject"] = "stringObject"
    sortable: Literal[False] = False


Askable: TypeAlias = Filterable | OfScores | OfComments | OfPlace | OfMembers
A_co = TypeVar("A_co", bound=Askable, covariant=True)


class Listed(Protocol[A_co]):
    """A table by what can be asked of it, wherever its rows are."""

    @property
    def name(self) -> str:
        """What a stored query calls it."""

    @property
    def filterables(self) -> tuple[A_co, ...]:
        """What filters and orderBy may name."""

    @property
    def searched(self) -> dict[SearchType, tuple[ColumnElement[str], ...]]:
        """What a search of each type looks at."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A table that can be exported; the file's columns are `outputs`, then comments, then one a score name.

    `rows` is the alias of the source, or the name of the view, that all values are of, `moment` the business time that
    the cutoff applies to, `order` the rows' own order, which the server can read in, and which the identity ends.
    `only` is asked of all rows.
    `natural` comes before that where a query asks for none. `needed` is what enrichers read besides the outputs.
    `otherwise` is read instead where the project has no row in the source, `from_events` where the query asks for the
    events table.
    """

    name: str
    source: Source | View
    rows: FromClause
    only: ColumnElement[bool] = field(default_factory=true)
    outputs: tuple[Output, ...]
    needed: tuple[Output, ...] = ()
    filterables: tuple[Askable, ...]
    searched: dict[SearchType, tuple[ColumnElement[str], ...]] = field(default_factory=dict)
    moment: ColumnElement[Any]
    natural: OrderBy | None = None
    order: tuple[ColumnElement[Any], ...]
    wide: tuple[ColumnElement[Any], ...]
    enrichers: tuple[Callable[[Engine, str], Enricher], ...] = ()
    comments_on: str | None = None
    scores: tuple[ScoreLevel, ...] = ()
    otherwise: "Declaration | None" = None
    from_events: "Declaration | None" = None

    @property
    def identity(self) -> ColumnElement[Any]:
        """What tells two rows apart."""
        return self.order[-1]
