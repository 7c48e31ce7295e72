"""Compiles the order of rows: the one asked for, or the table's own, always ending in the row's identity."""

from typing import Any

from sqlalchemy import ColumnElement

from config.errors import Rejected
from pipeline.query.filters import column_named
from pipeline.request import OrderBy
from pipeline.tables.clickhouse_table import Askable, Declaration, Filterable, Listed


def ordering(
    declaration: Declaration, order_by: OrderBy | None, *, by_day: bool = True
) -> tuple[ColumnElement[Any], ...]:
    """Give the ORDER BY; rows without a value come last.

    `by_day` says that all rows lie where the table's days follow one another, so that the server may read in order.
    Raises Rejected, with the columns that can be sorted by, when the one asked for can't.
    """
    asked = order_by or declaration.natural
    if asked is None:
        return declaration.order
    column = sorted_by(declaration, asked)
    keys = (column.value,) if column.day is None or not by_day else (column.day, column.value)
    if asked.order == "ASC":
        return (*(key.asc().nulls_last() for key in keys), declaration.identity)
    return (*(key.desc().nulls_last() for key in keys), declaration.identity)


def sorted_by(table: Listed[Askable], order_by: OrderBy) -> Filterable:
    """Find the column to sort by; raises Rejected, with those that there are, when it is none of them."""
    column = column_named(table, order_by.column, sortable=True)
    if not isinstance(column, Filterable):
        known = ", ".join(column.id for column in table.filterables if column.sortable)
        raise Rejected(f"{table.name} can't be sorted by {order_by.column[:80]!r}. Columns that it can: {known}.")
    return column
