"""Looks up the columns that a stored query names, once: the compilers of both databases take the result."""

from dataclasses import dataclass
from typing import Generic

from config.errors import Rejected
from pipeline.request import Direction, ExportQuery, Filter, OrderBy
from pipeline.tables.columns import ACCEPTED_FILTERS, AnyFilterable, Filterable, Filterable_co, Filterables

# Langfuse keeps one saved order for all tables, so each of these names a table's own time.
TIMES = frozenset({"timestamp", "startTime", "createdAt"})


@dataclass(frozen=True)
class ResolvedFilter(Generic[Filterable_co]):
    """A filter of the query, and the column that it names."""

    column: Filterable_co
    filter: Filter


@dataclass(frozen=True)
class ResolvedOrder:
    """The column that the query sorts by, and the direction."""

    column: Filterable
    direction: Direction


@dataclass(frozen=True)
class ResolvedQuery(Generic[Filterable_co]):
    """What a query names in a table; `filters` are in the query's order, `order` is None where it names none."""

    filters: tuple[ResolvedFilter[Filterable_co], ...]
    order: ResolvedOrder | None


def resolve_query(table: Filterables[Filterable_co], query: ExportQuery) -> ResolvedQuery[Filterable_co]:
    """Look up the columns of all filters and of the order.

    Raises Rejected, with the column and what would be right, for a filter or an order that the table doesn't support.
    """
    filters = tuple(ResolvedFilter(resolve_filter(table, each), each) for each in query.filter or ())
    order = None if query.order_by is None else resolve_order(table, query.order_by)
    return ResolvedQuery(filters, order)


def find_column(table: Filterables[Filterable_co], name: str, *, sortable: bool = False) -> Filterable_co | None:
    """Return the column with this id or display name, or None."""
    for column in table.filterables:
        if name in (column.id, *column.names) and (column.sortable or not sortable):
            return column
    return None


def resolve_filter(table: Filterables[Filterable_co], each: Filter) -> Filterable_co:
    """Return the column that a filter names; raises Rejected if there is none, or if it doesn't accept the filter."""
    column = find_column(table, each.column)
    if column is None:
        known = ", ".join(column.id for column in table.filterables)
        raise Rejected(
            f"The column {each.column[:80]!r} can't be filtered by in {table.name}. Columns that can: {known}."
        )
    if each.type not in ACCEPTED_FILTERS[column.type]:
        right = ", ".join(sorted(ACCEPTED_FILTERS[column.type]))
        raise Rejected(
            f"The column {each.column[:80]!r} of {table.name} takes no filter of type {each.type!r}. "
            f"Types that it takes: {right}."
        )
    if each.operator == "matches" and not (isinstance(column, Filterable) and column.full_text):
        raise Rejected(
            f"The column {each.column[:80]!r} of {table.name} takes no operator 'matches'. "
            "Operators that it takes: =, contains, does not contain, starts with, ends with."
        )
    return column


def resolve_order(table: Filterables[AnyFilterable], order_by: OrderBy) -> ResolvedOrder:
    """Return the column to sort by; raises Rejected, with the sortable columns, if it is none of them.

    An id of a time that the table has not stands for the one that it has.
    """
    names = (order_by.column, *sorted(TIMES)) if order_by.column in TIMES else (order_by.column,)
    column = next((found for name in names if (found := find_column(table, name, sortable=True)) is not None), None)
    if not isinstance(column, Filterable):
        known = ", ".join(column.id for column in table.filterables if column.sortable)
        raise Rejected(f"{table.name} can't be sorted by {order_by.column[:80]!r}. Columns that it can: {known}.")
    return ResolvedOrder(column, order_by.order)
