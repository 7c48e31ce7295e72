"""Decides whether a row passes filters. The rules, which are the product's as well:

1. A filter is asked of the values that the row has under its column: none where the value is missing, one, or several
   (tags, an object's comments, its scores of a name, the metadata of a session's members under a key).
2. A positive operator holds if at least one value satisfies it. A negative one is the exact opposite of its positive
   twin: `none of` of `any of`, `does not contain` of `contains`, `<>` of `=`. So a row whose value is missing fails
   every positive comparison and passes every negative one: who excludes X wants everything that is not X.
3. `is null` holds if there is no value, `is not null` if there is one; metadata without a key is no value. On the
   events tables, where text can't be null, an empty text is null as well (not so inside metadata); to every other
   operator, and everywhere else, it is a text like any other.
4. `all of` holds if each option is among the values; of no options it is true, as is `none of`; `any of` none is false.
5. Text compares case-sensitively by code points, nothing is trimmed; comments' text compares case-insensitively (for
   ASCII letters at least), whatever the operator.
6. Numbers compare exactly: decimals and integers with all digits that the filter's number was written with, floating
   point values with the filter's number as floating point. NaN satisfies nothing. Instants compare exactly too: a
   filter's microseconds are not cut to a column's milliseconds.
7. `matches`: the words of the filter's value all occur among the words of the text, ASCII letters in any case; a word
   is a run of ASCII letters, digits and non-ASCII characters.
8. Filters see the latest version only, and are ANDed.
"""

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.oracle.columns import ACCEPTED, FULL_TEXT, SCORE_COLUMNS, Column, column_named
from tests.oracle.values import Empty, Filter, Item, Place, Refused, Score

OPPOSITE = {"none of": "any of", "does not contain": "contains", "<>": "="}
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
TEXT: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "contains": operator.contains,
    "starts with": str.startswith,
    "ends with": str.endswith,
    "matches": lambda text, wanted: words(wanted) <= words(text),
}
MATCHED = ("input", "output", "metadata")


def passes(table: str, item: Item, filters: list[Filter]) -> bool:
    """Whether the row passes all filters; raises Refused where the product should refuse one."""
    return all(_passes(table, item, each) for each in filters)


def check(table: str, each: Filter) -> Column:
    """Find the column of a filter; raises Refused where the filter can't be on it."""
    column = column_named(table, each["column"])
    if each["type"] not in ACCEPTED[column.type]:
        raise Refused(f"a {each['type']} filter can't be on {table}.{column.id}")
    if each["operator"] == "matches" and (table not in FULL_TEXT or column.id not in MATCHED):
        raise Refused(f"{table}.{column.id} has no full text")
    return column


def _passes(table: str, item: Item, each: Filter) -> bool:
    column = check(table, each)
    if column.type == "positionInTrace":
        return _in_place(item.facts["positionInTrace"], each)
    fact = item.facts[SCORE_COLUMNS[each["type"]] if column.type == "scores" else column.id]
    if each["type"] == "null":
        there = item.facts.get(f"{column.id} there", _is_there(fact))
        return bool(bool(there) == (each["operator"] == "is not null"))
    values = _values(fact, column, each)
    if each["operator"] == "all of":
        return set(each["value"]) <= set(values)
    positive = OPPOSITE.get(each["operator"])
    if positive:
        return not _some(values, column, {**each, "operator": positive})
    return _some(values, column, each)


def _is_there(fact: Any) -> bool:
    if isinstance(fact, list):
        return any(value != {} for value in fact)
    return fact is not None and not isinstance(fact, Empty)


def _values(fact: Any, column: Column, each: Filter) -> list[Any]:
    """The values that the row has under the filter's column and key."""
    if isinstance(fact, tuple):
        return _score_values(fact, each)
    if column.type == "stringObject":
        return [metadata[each["key"]] for metadata in fact if each["key"] in metadata]
    if isinstance(fact, list):
        return fact
    return [] if fact is None else [fact]


def _score_values(scores: tuple[Score, ...], each: Filter) -> list[Any]:
    if each["type"] == "stringOptions":
        return [f"{score.name}:{score.value}" for score in scores]
    return [
        score.value != 0 if each["type"] == "booleanObject" else score.value
        for score in scores
        if score.name == each["key"]
    ]


def _some(values: list[Any], column: Column, each: Filter) -> bool:
    """Whether some value satisfies a positive operator."""
    wanted = each["value"]
    match each["type"]:
        case "stringOptions" | "arrayOptions" | "categoryOptions":
            options = set(wanted)
            return any(value in options for value in values)
        case "boolean" | "booleanObject":
            return wanted in values
        case "number" | "numberObject":
            return any(_number(each["operator"], value, wanted) for value in values)
        case "datetime":
            return any(ORDER[each["operator"]](value, instant(wanted)) for value in values)
        case _:
            fold: Callable[[str], str] = str.lower if column.id == "commentContent" else str
            return any(TEXT[each["operator"]](fold(value), fold(wanted)) for value in values)


def _number(comparison: str, value: float | Decimal, wanted: float) -> bool:
    if isinstance(value, float):
        return ORDER[comparison](value, float(wanted))
    return ORDER[comparison](Decimal(value), Decimal(str(wanted)))


def instant(value: str) -> datetime:
    """Read an instant of a query; one without a zone is UTC."""
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def words(text: str) -> set[str]:
    """The words of a text for full-text search."""
    lowered = "".join(character.lower() if character.isascii() else character for character in text)
    return set(re.findall(r"[0-9a-z\u0080-\U0010ffff]+", lowered))


def _in_place(place: Place, each: Filter) -> bool:
    """Positions count the table's own rows of the trace: latest versions before the cutoff, by start and then id."""
    match each["key"]:
        case "root":
            return place.is_root
        case "first":
            return place.from_start == 1
        case "last":
            return place.from_end == 1
        case "nthFromStart":
            return bool(place.from_start == each["value"])
        case _:
            return bool(place.from_end == each["value"])
