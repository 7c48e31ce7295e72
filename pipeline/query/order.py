"""Compiles the order of a ClickHouse table's rows; it always ends in the row's identity."""

from typing import Any

from sqlalchemy import ColumnElement

from pipeline.query.resolve import ResolvedOrder, resolve_order
from pipeline.tables.clickhouse_table import ClickHouseTable


def order_by(
    table: ClickHouseTable, order: ResolvedOrder | None, *, by_day: bool = True
) -> tuple[ColumnElement[Any], ...]:
    """Return the ORDER BY: the query's order, else the table's default, else its own; nulls come last.

    `by_day` says that the days of all rows are in the range where the table sorts them by time, so that the server can
    read in order.
    """
    if order is None:
        if table.default_order is None:
            return table.order
        order = resolve_order(table, table.default_order)
    column = order.column
    keys = (column.value,) if column.day is None or not by_day else (column.day, column.value)
    if order.direction == "ASC":
        return (*(key.asc().nulls_last() for key in keys), table.identity)
    return (*(key.desc().nulls_last() for key in keys), table.identity)
