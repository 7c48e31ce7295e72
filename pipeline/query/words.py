"""Says in words what an export holds, for the manifest and for whoever wonders about a file."""

from collections.abc import Sequence
from datetime import datetime

from pipeline import request as stored
from pipeline.spec import ExportSpec
from pipeline.tables import find_table, resolve_table

MOST_VALUES = 20


def in_words(spec: ExportSpec) -> str:
    """Return one sentence: the table, the cutoff, and every filter, search, order and limit in force."""
    query = spec.query
    met = [f"created before {_instant(spec.created_at)}", *(_filter(each) for each in query.filter or ())]
    if query.search_query:
        places = " or ".join(query.search_type or ("id",))
        met.append(f"with {query.search_query!r} in {places}")
    source = "" if resolve_table(query) is find_table(query.table_name) else " of the events table"
    said = f"{query.table_name}{source} {' and '.join(met)}"
    if query.order_by is not None:
        direction = "ascending" if query.order_by.order == "ASC" else "descending"
        said += f", sorted by {query.order_by.column}, {direction}"
    if spec.row_limit is not None:
        said += f", {spec.row_limit:,} rows at most"
    return said


def _filter(each: stored.Filter) -> str:
    key = f".{each.key}" if hasattr(each, "key") else ""
    if isinstance(each, stored.NullFilter):
        return f"{each.column} {each.operator}"
    if isinstance(each, stored.PositionFilter) and each.value is None:
        return f"{each.column} is {each.key}"
    return f"{each.column}{key} {each.operator} {_value(each.value)}"


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        listed = ", ".join(repr(each) for each in value[:MOST_VALUES])
        more = len(value) - MOST_VALUES
        return f"({listed}{f', and {more:,} more' if more > 0 else ''})"
    return repr(value)


def _instant(value: datetime) -> str:
    exact = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.isoformat(timespec=exact).replace("+00:00", "Z")
