"""Says what the file of an export must contain, from the raw tables: `table_of`, then `expected`.

The cutoff decides which rows of the exported table are in the file, by the latest version's own business time
(timestamp, startTime, createdAt; of a session the earliest of its members): strictly before. What is joined to a row
(its trace, observations, comments, prices) is as it is now. Scores alone are joined only if created_at <= cutoff: a
later one gives neither a column nor a value, and no filter sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from tests.oracle import order, search
from tests.oracle.events import events
from tests.oracle.filters import check, passes
from tests.oracle.observations import observations
from tests.oracle.raw import World
from tests.oracle.scores import scores
from tests.oracle.sessions import sessions
from tests.oracle.stored import audit_logs, dataset_items, dataset_run_items
from tests.oracle.traces import traces
from tests.oracle.values import Bag, Cell, Expected, Item, Table

PLAIN: dict[str, Callable[[World, str, datetime], Table]] = {
    "traces": traces,
    "events": events,
    "dataset_items": dataset_items,
    "dataset_run_items": dataset_run_items,
    "audit_logs": audit_logs,
}
EVENTS_BACKED: dict[str, "EventsBacked"] = {"observations": observations, "scores": scores, "sessions": sessions}
TABLES = (*PLAIN, *EVENTS_BACKED)


class EventsBacked(Protocol):
    """A table that can be read from the legacy tables or from the events tables."""

    def __call__(self, world: World, project_id: str, cutoff: datetime, *, events: bool) -> Table: ...


def table_of(world: World, project_id: str, name: str, cutoff: datetime, *, use_events_table: bool = False) -> Table:
    """All rows of a table that an export without filters has; worth keeping for many queries."""
    if name in EVENTS_BACKED:
        return EVENTS_BACKED[name](world, project_id, cutoff, events=use_events_table)
    return PLAIN[name](world, project_id, cutoff)


def expected(table: Table, query: Mapping[str, Any]) -> Expected:
    """What the file of a stored query must contain; raises Refused where the query must be refused."""
    wanted, sort = query.get("searchQuery") or "", query.get("orderBy")
    types = query.get("searchType") or ["id"]
    filters = list(query.get("filter") or [])
    for each in filters:
        check(table.listing, each)
    if wanted:
        search.check(table.name, types)
    found, left = table.regroup(filters) if table.regroup else (table.items, filters)
    items = [item for item in found if passes(table.listing, item, left)]
    if wanted:
        items = [item for item in items if search.found(item, wanted, types)]
    if sort:
        items = order.ordered(table.listing, items, sort["column"], sort["order"])
    elif table.natural:
        items = sorted(sorted(items, key=lambda item: item.identity), key=table.natural)
    names = score_columns(table.columns, table.score_names)
    rows = tuple(_row(item, names) for item in items)
    return Expected(_columns(table, names, query.get("columns")), rows, ordered=bool(sort))


def _columns(table: Table, names: Mapping[str, str], asked: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of the file, in their order: all, or those that the query names."""
    if asked is None:
        return (*table.columns, *names.values())
    of_scores = {f"scores.{name}": (column,) for name, column in names.items()}
    named = {"scores": tuple(names.values()), **of_scores, **{name: (name,) for name in table.columns}}
    return tuple(column for name in asked for column in named[name])


def score_columns(columns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The column of each score name.

    One that the table's own columns have gets `scores.` in front, again and again until no column and no other score
    has the name; all others stay as they are.
    """
    taken = {*columns, *names}
    result = {}
    for name in names:
        column = name
        while name in columns and column in taken:
            column = f"scores.{column}"
        taken.add(column)
        result[name] = column
    return result


def _row(item: Item, names: Mapping[str, str]) -> dict[str, Cell]:
    cells = dict(item.cells)
    for name, column in names.items():
        values = tuple(score.value for score in item.scores if score.name == name)
        cells[column] = Bag(values) if values else None
    return cells
