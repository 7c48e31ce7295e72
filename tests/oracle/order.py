"""Sorts rows. The rules, which are the product's as well:

1. Every column that has one scalar value in a row can be sorted by, by id or display name; so not the comments' texts.
2. First the values, then NaN, then rows without a value, in both directions.
3. Text sorts by code point (that is, by its UTF-8 bytes), false before true, an observation's level as text.
4. `timestamp`, `startTime` and `createdAt` each name the time of a table that has one of the others.
5. Rows with the same value are in the order of their ids, ascending, in both directions.
"""

from collections.abc import Sequence
from typing import Any

from tests.oracle.columns import Column, column_named, columns_of
from tests.oracle.values import Empty, Item, Refused

TIMES = ("timestamp", "startTime", "createdAt")


def _column(table: str, name: str) -> Column:
    if name in TIMES and name not in columns_of(table):
        name = next(time for time in TIMES if time in columns_of(table))
    return column_named(table, name)


def ordered(table: str, items: Sequence[Item], name: str, direction: str) -> list[Item]:
    """The items sorted by a column; raises Refused."""
    column = _column(table, name)
    if not column.sortable:
        raise Refused(f"{table} can't be sorted by {column.id}")
    by_id = sorted(items, key=lambda item: item.identity)

    def value(item: Item) -> Any:
        return None if isinstance(item.facts[column.id], Empty) else item.facts[column.id]

    missing = [item for item in by_id if value(item) is None]
    nans = [item for item in by_id if value(item) is not None and value(item) != value(item)]
    values = [item for item in by_id if value(item) is not None and value(item) == value(item)]
    # A stable sort keeps equal values by id, reversed or not.
    return sorted(values, key=value, reverse=direction == "DESC") + nans + missing
