"""Declares columns: those of a file, those that filters and orderBy may name, and what both are joined from."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Engine, Select

from pipeline.request import SearchType
from pipeline.sql.scores import ScoreLevel
from pipeline.types import Column, Kind

# Where names come from: a file's columns have the names and order of Langfuse's own export of the table, and filterable
# columns the ids, display names and types of Langfuse's table definitions, because scripts and stored queries use them.
# tests/oracle/columns.tsv and the COLUMNS of tests/oracle/*.py repeat them, copied from there and not from here.
ID = "id"
"""The column of the row's ID, which every table has."""

ColumnType = Literal["string", "stringOptions", "datetime", "number", "boolean", "arrayOptions", "stringObject"]
ScoreColumnType = Literal["numberObject", "categoryOptions", "booleanObject", "scores"]

ACCEPTED_FILTERS: dict[str, frozenset[str]] = {
    "string": frozenset({"string", "stringOptions", "null"}),
    "stringOptions": frozenset({"string", "stringOptions", "null"}),
    "number": frozenset({"number", "null"}),
    "datetime": frozenset({"datetime", "null"}),
    "boolean": frozenset({"boolean", "null"}),
    "arrayOptions": frozenset({"arrayOptions", "stringOptions", "null"}),
    "stringObject": frozenset({"stringObject", "null"}),
    "numberObject": frozenset({"numberObject"}),
    "categoryOptions": frozenset({"categoryOptions", "stringOptions"}),
    "booleanObject": frozenset({"booleanObject"}),
    "scores": frozenset({"numberObject", "categoryOptions", "booleanObject"}),
    "positionInTrace": frozenset({"positionInTrace"}),
}
"""The types of filters that a column of a type accepts."""


@dataclass(frozen=True)
class ExternalTable:
    """Rows of Langfuse's Postgres that ClickHouse reads: they are sent with the statement, as a temporary table.

    `structure` is the table's columns with their ClickHouse types. `statement` selects the rows of a project from the
    given database, Postgres or SQLite.
    """

    name: str
    structure: str
    statement: Callable[[str, Engine], Select[Any]]


@dataclass(frozen=True)
class Join:
    """A narrow table, computed for one export, that is joined to the exported one; it has at most one row per row.

    `rows` selects it for a project and a cutoff: the key, `<name>_key`, which equals `on`, and columns that values
    refer to by name alone, so no other table may have columns of these names. It is joined only where an output, a
    filter or the order needs it. A row without a match gets the default of each column's type, or null where the type
    is nullable.
    """

    name: str
    on: ColumnElement[Any]
    rows: Callable[[str, datetime], Select[Any]]
    external: ExternalTable | None = None


@dataclass(frozen=True)
class Output:
    """One column of the file, read from ClickHouse.

    `nested` is the value for formats that can hold JSON values, where it differs. `value` is None for a column that an
    enricher adds, and `made_of` names the column that it looks it up by. `join` is the table that the value comes from,
    if not the exported one.
    """

    name: str
    kind: Kind
    value: ColumnElement[Any] | None
    nested: ColumnElement[Any] | None = None
    join: Join | None = None
    made_of: str | None = None

    @property
    def column(self) -> Column:
        """The column as encoders know it."""
        return Column(self.name, self.kind)


@dataclass(frozen=True)
class DatabaseOutput:
    """One column of the file, read from Postgres or SQLite: a text, an instant, or JSON as the database stores it."""

    name: str
    kind: Kind
    value: ColumnElement[Any]

    @property
    def column(self) -> Column:
        """The column as encoders know it."""
        return Column(self.name, self.kind)


@dataclass(frozen=True)
class Filterable:
    """A column that filters and orderBy may name, by id or by display name.

    `day` is the day of the value, if the table is sorted by it: the server can then skip days and read in order.
    `join` is the table that the value comes from, if not the exported one. `places` are the decimal places of an exact
    number, 0 for an integer, None for floating point. `full_text` says that the operator `matches` is accepted.
    `empty_is_null` is for a text that is never null: an empty one is null to `is null` and in a sort.

    `member` is the column of the members that a row is aggregated from. Where there is one, filters select members by
    it before they are aggregated. Filters on an instant apply to the row as well, and an upper bound to the row alone.
    """

    id: str
    names: tuple[str, ...]
    type: ColumnType
    value: ColumnElement[Any]
    day: ColumnElement[Any] | None = None
    join: Join | None = None
    places: int | None = None
    full_text: bool = False
    empty_is_null: bool = False
    member: "Filterable | None" = None

    @property
    def sortable(self) -> bool:
        """Whether the column has one value per row that can be sorted by."""
        return self.type not in {"arrayOptions", "stringObject"}


@dataclass(frozen=True)
class ScoresFilterable:
    """The scores of a row, by name; only filters may name it. `levels` say which scores are a row's."""

    id: str
    names: tuple[str, ...]
    type: ScoreColumnType
    levels: tuple[ScoreLevel, ...]
    sortable: Literal[False] = False


@dataclass(frozen=True)
class CommentsFilterable:
    """The texts of the comments on a row; only filters may name it. `key` is the id that comments refer to."""

    id: str
    names: tuple[str, ...]
    object_type: str
    key: ColumnElement[str]
    type: Literal["string"] = "string"
    sortable: Literal[False] = False


class SelectAtPosition(Protocol):
    """Selects the keys of the rows at a position, counted from 1, in their traces."""

    def __call__(self, project_id: str, cutoff: datetime, position: int, *, from_end: bool) -> Select[Any]:
        """Return the statement for the rows of a project before a cutoff."""


@dataclass(frozen=True)
class PositionFilterable:
    """The position of a row in its trace; only filters may name it.

    `select_at` selects the `key` of the rows at a position, `is_root` is the condition for the position `root`.
    """

    id: str
    names: tuple[str, ...]
    key: ColumnElement[str]
    is_root: ColumnElement[bool]
    select_at: SelectAtPosition
    type: Literal["positionInTrace"] = "positionInTrace"
    sortable: Literal[False] = False


@dataclass(frozen=True)
class MembersFilterable:
    """The metadata of the members that a row aggregates; only filters may name it. One matching member is enough.

    `select_with_member` takes a project and two conditions: one for members, one for their metadata. It selects the
    `key` of the rows with a member that meets both.
    """

    id: str
    names: tuple[str, ...]
    key: ColumnElement[str]
    select_with_member: Callable[
        [str, ColumnElement[bool], Callable[[ColumnElement[Any]], ColumnElement[bool]]], Select[Any]
    ]
    type: Literal["stringObject"] = "stringObject"
    sortable: Literal[False] = False


AnyFilterable: TypeAlias = Filterable | ScoresFilterable | CommentsFilterable | PositionFilterable | MembersFilterable
Filterable_co = TypeVar("Filterable_co", bound=AnyFilterable, covariant=True)


class Filterables(Protocol[Filterable_co]):
    """What a query may name in a table, in whichever database the table is."""

    @property
    def name(self) -> str:
        """The table's name in a stored query."""

    @property
    def filterables(self) -> tuple[Filterable_co, ...]:
        """The columns that filters and orderBy may name."""

    @property
    def searched(self) -> dict[SearchType, tuple[ColumnElement[str], ...]]:
        """The columns that a search of each type looks into."""
