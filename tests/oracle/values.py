"""Names what an expected file is made of: cells that know how each format shows them, and what filters see of a row.

A plain cell is str, bool, int, float, Decimal, an aware datetime, a list of str, or None. The classes mark the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]
"""One raw row of a database table, values exact."""

Filter = Mapping[str, Any]
"""One filter of a stored query."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text, for long lists of names."""
    return tuple(text.split())


class Refused(Exception):
    """The product should refuse this query: FAILED at once, naming what is wrong."""


@dataclass(frozen=True)
class Json:
    """A cell that is JSON in every format: the value it holds."""

    value: Any


@dataclass(frozen=True)
class MaybeJson:
    """A source text that JSON and JSONL carry as a value where it is valid JSON; other formats carry the text."""

    text: str


@dataclass(frozen=True)
class Metadata:
    """A map of texts; JSON and JSONL parse each value that is valid JSON, CSV and Parquet only where `parsed`."""

    values: Mapping[str, str]
    parsed: bool


@dataclass(frozen=True)
class Bag:
    """A list whose order is the product's choice, as long as it is the same each time: the values of a score."""

    values: tuple[float | str, ...]


Cell = str | bool | int | float | Decimal | datetime | list[str] | Json | MaybeJson | Metadata | Bag | None


class Empty(str):
    """An empty text of the events tables, where texts are never null: null to `is null`, and in a sort."""

    __slots__ = ()


@dataclass(frozen=True)
class Score:
    """One value that a row has under a score's name: a number, or a text."""

    name: str
    data_type: str
    value: float | str


@dataclass(frozen=True)
class Place:
    """Where an observation stands in its trace, from 1, counted from both ends."""

    from_start: int
    from_end: int
    is_root: bool


@dataclass(frozen=True)
class Item:
    """One row of a table before filters: the cells of its fixed columns, and what filters, search and sort see.

    `facts` is by column id: a scalar or None, a list of texts, a tuple of scores, a Place, or, for metadata, a list of
    maps. `texts` is by search type. `scores` are those shown in the score columns.
    """

    identity: str
    cells: Mapping[str, Cell]
    facts: Mapping[str, Any]
    texts: Mapping[str, Sequence[str | None]]
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of one project as of a cutoff.

    `score_names` are the names that become columns; `natural` sorts the items as they are without `orderBy`, or is
    None where the product may choose. `regroup` makes the items again for filters that decide what an item is made of,
    and returns them with the filters that are still to be asked of them. `asked` are more values to filter by, by
    column. `of_events` says that the columns of events can be filtered and sorted by as well.
    """

    name: str
    columns: tuple[str, ...]
    items: tuple[Item, ...]
    score_names: tuple[str, ...] = ()
    natural: Callable[[Item], Any] | None = None
    regroup: Callable[[list[Filter]], tuple[tuple[Item, ...], list[Filter]]] | None = None
    asked: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    of_events: bool = False

    @property
    def listing(self) -> str:
        """The name under which columns.py lists the columns to filter and sort by."""
        return f"{self.name} of events" if self.of_events else self.name


@dataclass(frozen=True)
class Expected:
    """What the file must contain; `ordered` when the order of the rows is promised."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]
    ordered: bool

    @property
    def ids(self) -> list[str]:
        """The identities of the rows, in order."""
        return [str(row["id"]) for row in self.rows]
