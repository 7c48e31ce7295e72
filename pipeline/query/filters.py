"""Compiles filters into conditions of a ClickHouse statement."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, func, not_, true

from config.errors import Rejected
from pipeline import request as stored
from pipeline.query.resolve_columns import ResolvedFilter, ResolvedQuery
from pipeline.spec import ExportSpec
from pipeline.sql import scores
from pipeline.sql.clickhouse import (
    COMPARISONS,
    bind_bool,
    bind_number,
    bind_text,
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
from pipeline.tables import comments
from pipeline.tables.columns import (
    AnyFilterable,
    CommentsFilterable,
    Filterable,
    MembersFilterable,
    PositionFilterable,
    ScoresFilterable,
)

Condition = ColumnElement[bool]

NEGATIVE = frozenset({"none of", "does not contain", "<>", "is null"})


def filter_condition(query: ResolvedQuery[AnyFilterable], spec: ExportSpec) -> Condition:
    """Return the condition that a row meets when it meets all filters.

    A missing value (null, an absent key, no score of the name, no comment) meets no positive condition. A negative
    condition (`does not contain`, `none of`, `<>`) is the exact opposite of its positive one, so a missing value meets
    it. Where a row has several values (tags, scores, comments), one is enough for a positive condition. An empty list
    is null.
    """
    conditions = (
        _condition(each, place, query, spec) for place, each in enumerate(query.filters) if _is_of_rows(each.column)
    )
    return and_(true(), *conditions)


def member_condition(query: ResolvedQuery[AnyFilterable], spec: ExportSpec) -> Condition:
    """Return the condition that a member meets when rows may be aggregated from it."""
    members = (_find_member(each) for each in query.filters)
    return and_(true(), *(_condition(each, 0, query, spec) for each in members if each is not None))


def _is_of_rows(column: AnyFilterable) -> bool:
    return not isinstance(column, Filterable) or column.member is None or column.type == "datetime"


def _find_member(resolved: ResolvedFilter[AnyFilterable]) -> ResolvedFilter[AnyFilterable] | None:
    """Return the filter as it selects members; None for one that doesn't."""
    column = resolved.column
    if not isinstance(column, Filterable) or column.member is None or resolved.filter.operator in {"<", "<="}:
        return None
    return ResolvedFilter(column.member, resolved.filter)


def _condition(
    resolved: ResolvedFilter[AnyFilterable], place: int, query: ResolvedQuery[AnyFilterable], spec: ExportSpec
) -> Condition:
    positive = _positive(resolved, place, query, spec)
    if resolved.filter.operator in NEGATIVE:
        return not_(func.coalesce(positive, bind_bool(value=False)))
    return positive


def _positive(
    resolved: ResolvedFilter[AnyFilterable], place: int, query: ResolvedQuery[AnyFilterable], spec: ExportSpec
) -> Condition:
    """Compile the filter's operator or, of a negative one, its opposite."""
    match resolved.column, resolved.filter:
        case Filterable() as column, each:
            return _compare(column, each)
        case ScoresFilterable() as column, (
            stored.NumberObjectFilter()
            | stored.CategoryOptionsFilter()
            | stored.BooleanObjectFilter()
            | stored.StringOptionsFilter() as each
        ):
            return scores.has_score(column.levels, each, spec.project_id, spec.created_at)
        case CommentsFilterable() as column, _:
            return comments.has_comment(column, place)
        case PositionFilterable() as column, stored.PositionFilter() as each:
            return _is_at_position(column, each, spec)
        case MembersFilterable() as column, (stored.StringObjectFilter() | stored.NullFilter() as each):
            met = func.notEmpty if isinstance(each, stored.NullFilter) else partial(_compare_key, each)
            return column.key.in_(column.select_with_member(spec.project_id, member_condition(query, spec), met))
        case _, each:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")


def _compare(column: Filterable, each: stored.Filter) -> Condition:  # noqa: PLR0911 (one return a type)
    value = column.value
    match each:
        case stored.DatetimeFilter():
            return _compare_instant(column, each)
        case stored.StringFilter():
            return _compare_text(value, each.operator, each.value)
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
            return _compare_key(each, value)
        case stored.BooleanFilter():
            return value == bind_bool(each.value)
        case stored.NullFilter() if column.empty_is_null or column.type in {"arrayOptions", "stringObject"}:
            return func.notEmpty(value)
        case stored.NullFilter():
            return value.is_not(None)
        case _:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")


def _compare_instant(column: Filterable, each: stored.DatetimeFilter) -> Condition:
    inclusive = each.operator in {">=", "<="}
    if each.operator in {">", ">="}:
        exact, roughly = is_after(column.value, each.value, inclusive=inclusive), may_be_after
    else:
        exact, roughly = is_before(column.value, each.value, inclusive=inclusive), may_be_before
    return exact if column.day is None else and_(exact, roughly(column.day, each.value))


def _compare_text(value: ColumnElement[Any], operator: stored.TextOperator, wanted: str) -> Condition:
    match operator:
        case "=":
            return value == bind_text(wanted)
        case "contains" | "does not contain":
            return contains(value, wanted)
        case "starts with":
            return starts_with(value, wanted)
        case "ends with":
            return ends_with(value, wanted)
        case "matches":
            return contains_words(value, wanted)


def _compare_key(each: stored.StringObjectFilter, metadata: ColumnElement[Any]) -> Condition:
    return _compare_text(get_map_value(metadata, each.key), each.operator, each.value)


def _is_at_position(column: PositionFilterable, each: stored.PositionFilter, spec: ExportSpec) -> Condition:
    if each.key == "root":
        return column.is_root
    from_end = each.key in {"last", "nthFromEnd"}
    position = each.value if each.value is not None and each.key.startswith("nth") else 1
    return column.key.in_(column.select_at(spec.project_id, spec.created_at, position, from_end=from_end))
