"""Compiles filters into conditions."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, func, not_, true

from config.errors import Rejected
from pipeline import request as stored
from pipeline.spec import ExportSpec
from pipeline.sql import scores
from pipeline.sql.clickhouse import (
    COMPARISONS,
    bind_bool,
    bind_number,
    bind_texts,
    compare_decimal,
    contains,
    contains_words,
    ends_with,
    get_map_value,
    is_after,
    is_before,
    is_one_of,
    may_be_after,
    may_be_before,
    starts_with,
)
from pipeline.sql.clickhouse import bind_text as bound
from pipeline.tables import comments as commented
from pipeline.tables.clickhouse_table import (
    A_co,
    Declaration,
    Filterable,
    Listed,
    OfComments,
    OfMembers,
    OfPlace,
    OfScores,
)

Condition = ColumnElement[bool]

# The types of filters that a column of a type takes.
TAKES: dict[str, frozenset[str]] = {
    "string": frozenset({"string", "stringOptions", "null"}),
    "stringOptions": frozenset({"string", "stringOptions", "null"}),
    "number": frozenset({"number", "null"}),
    "datetime": frozenset({"datetime", "null"}),
    "boolean": frozenset({"boolean", "null"}),
    "arrayOptions": frozenset({"arrayOptions", "stringOptions", "null"}),
    "stringObject": frozenset({"stringObject"}),
    "numberObject": frozenset({"numberObject"}),
    "categoryOptions": frozenset({"categoryOptions", "stringOptions"}),
    "booleanObject": frozenset({"booleanObject"}),
    "scores": frozenset({"numberObject", "categoryOptions", "booleanObject"}),
    "positionInTrace": frozenset({"positionInTrace"}),
}
NEGATIVE = frozenset({"none of", "does not contain", "<>", "is null"})


def conditions(declaration: Declaration, spec: ExportSpec) -> Condition:
    """Give the condition that a row meets when it meets all filters.

    What is missing (null, a key that is not there, no score of the name, no comment) meets no positive condition; a
    negative one (`does not contain`, `none of`, `<>`) is the exact opposite of its positive, so what is missing meets
    it. Of several values (tags, scores, comments) one is enough for a positive condition. An empty list is null.

    Raises Rejected with the column, and what would be right, for a filter that the table can't honour.
    """
    return and_(true(), *(_condition(declaration, spec, place) for place in range(len(spec.query.filter or ()))))


def column_named(table: Listed[A_co], name: str, *, sortable: bool = False) -> A_co | None:
    """Find a column by its id, or by a name that it is also known as."""
    for column in table.filterables:
        if name in (column.id, *column.names) and (column.sortable or not sortable):
            return column
    return None


def filtered(table: Listed[A_co], each: stored.Filter) -> A_co:
    """Find the column that a filter asks about; raises Rejected where there is none, or none of this type."""
    column = column_named(table, each.column)
    if column is None:
        known = ", ".join(column.id for column in table.filterables)
        raise Rejected(
            f"The column {each.column[:80]!r} can't be filtered by in {table.name}. Columns that can: {known}."
        )
    if each.type not in TAKES[column.type]:
        right = ", ".join(sorted(TAKES[column.type]))
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


def _condition(declaration: Declaration, spec: ExportSpec, place: int) -> Condition:
    each = (spec.query.filter or ())[place]
    column = filtered(declaration, each)
    match column, each:
        case Filterable() as own, _:
            found = _of_value(own, each)
        case OfScores() as own, (
            stored.NumberObjectFilter()
            | stored.CategoryOptionsFilter()
            | stored.BooleanObjectFilter()
            | stored.StringOptionsFilter() as asked
        ):
            found = scores.has_score(own.scored, asked, spec.project_id, spec.created_at)
        case OfComments() as own, _:
            found = commented.holds(own, place)
        case OfPlace() as own, stored.PositionFilter() as asked:
            found = _of_place(own, asked, spec)
        case OfMembers() as own, stored.StringObjectFilter() as asked:
            found = own.key.in_(own.with_member(spec.project_id, partial(_of_key, asked)))
        case _:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")
    return not_(func.coalesce(found, bind_bool(value=False))) if each.operator in NEGATIVE else found


def _of_value(column: Filterable, each: stored.Filter) -> Condition:  # noqa: PLR0911 (one return a type)
    """Give the condition of an operator, or of its positive twin."""
    value = column.value
    match each:
        case stored.DatetimeFilter():
            return _instant(column, each)
        case stored.StringFilter():
            return _text(value, each.operator, each.value)
        case stored.NumberFilter() if column.places is not None:
            return compare_decimal(value, each.operator, each.value, column.places)
        case stored.NumberFilter():
            return COMPARISONS[each.operator](value, bind_number(each.value))
        case stored.StringOptionsFilter() if column.type != "arrayOptions":
            return is_one_of(value, each.value)
        case stored.ArrayOptionsFilter() if each.operator == "all of":
            return func.hasAll(value, bind_texts(each.value))
        case stored.StringOptionsFilter() | stored.ArrayOptionsFilter():
            return func.hasAny(value, bind_texts(each.value))
        case stored.StringObjectFilter():
            return _of_key(each, value)
        case stored.BooleanFilter():
            return value == bind_bool(each.value)
        case stored.NullFilter() if column.type == "arrayOptions":
            return func.notEmpty(value)
        case stored.NullFilter():
            return value.is_not(None)
        case _:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")


def _instant(column: Filterable, each: stored.DatetimeFilter) -> Condition:
    inclusive = each.operator in {">=", "<="}
    if each.operator in {">", ">="}:
        exact, roughly = is_after(column.value, each.value, inclusive=inclusive), may_be_after
    else:
        exact, roughly = is_before(column.value, each.value, inclusive=inclusive), may_be_before
    return exact if column.day is None else and_(exact, roughly(column.day, each.value))


def _text(value: ColumnElement[Any], asked: stored.TextOperator, wanted: str) -> Condition:
    match asked:
        case "=":
            return value == bound(wanted)
        case "contains" | "does not contain":
            return contains(value, wanted)
        case "starts with":
            return starts_with(value, wanted)
        case "ends with":
            return ends_with(value, wanted)
        case "matches":
            return contains_words(value, wanted)


def _of_key(each: stored.StringObjectFilter, metadata: ColumnElement[Any]) -> Condition:
    return _text(get_map_value(metadata, each.key), each.operator, each.value)


def _of_place(column: OfPlace, each: stored.PositionFilter, spec: ExportSpec) -> Condition:
    if each.key == "root":
        return column.root
    from_end = each.key in {"last", "nthFromEnd"}
    place = each.value if each.value is not None and each.key.startswith("nth") else 1
    return column.key.in_(column.at(spec.project_id, spec.created_at, place, from_end=from_end))
