"""Compiles the statements of an export of a table in Postgres or SQLite; filters mean the same as in ClickHouse."""

from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, DateTime, Engine, Select, Text, and_, cast, func, literal, select, type_coerce
from sqlalchemy.sql.elements import UnaryExpression

from config.errors import Rejected
from config.instant import Instant
from pipeline import request as stored
from pipeline.query.resolve_columns import ResolvedFilter, ResolvedOrder, ResolvedQuery
from pipeline.query.search import search_condition
from pipeline.request import Direction
from pipeline.spec import ExportSpec
from pipeline.sql.clickhouse import COMPARISONS
from pipeline.sql.postgres import (
    contains,
    contains_ignoring_case,
    ends_with,
    equals,
    get_member,
    is_one_of,
    negate,
    sort_by,
    starts_with,
    to_sort_key,
)
from pipeline.tables.columns import Filterable
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import Kind

Condition: TypeAlias = ColumnElement[bool]
Keys: TypeAlias = list[tuple[ColumnElement[Any], Direction]]
JSON_NULL = "null"


def select_rows(
    table: DatabaseTable, query: ResolvedQuery[Filterable], spec: ExportSpec, database: Engine
) -> Select[Any]:
    """Select the rows, one column for each of the table's outputs.

    The inner statement sorts, the outer one computes what is read: as long as nothing is computed from large values,
    the sort moves only their addresses. With a row limit, one row more is selected: it shows whether the limit cut off
    any. Raises Rejected for a filter or search that the table doesn't support.
    """
    order = _order(table, query.order)
    keys = [to_sort_key(value) for value, _ in order]
    inner = (
        select(
            *(output.value.label(f"c{place}") for place, output in enumerate(table.outputs)),
            *(key.label(f"k{place}") for place, key in enumerate(keys)),
        )
        .select_from(table.rows)
        .where(table.is_current(spec.project_id), _condition(table, query, spec, database))
        .order_by(*_order_by(keys, order))
        .limit(None if spec.output.row_limit is None else spec.output.row_limit + 1)
        .subquery("ordered")
    )
    values = [_read(output.kind, inner.c[f"c{place}"]) for place, output in enumerate(table.outputs)]
    return select(*values).order_by(*_order_by([inner.c[f"k{place}"] for place in range(len(keys))], order))


def select_widest(table: DatabaseTable, spec: ExportSpec) -> Select[Any]:
    """Select the bytes that the widest of the project's rows takes in storage, where it may be compressed."""
    size: ColumnElement[int] = literal(0)
    for value in table.wide:
        size += func.coalesce(func.pg_column_size(value), 0)
    return select(func.max(size)).select_from(table.rows).where(table.is_current(spec.project_id))


def _condition(table: DatabaseTable, query: ResolvedQuery[Filterable], spec: ExportSpec, database: Engine) -> Condition:
    return and_(
        table.moment < literal(spec.created_at, Instant()),
        *(_filter_condition(each, database) for each in query.filters),
        search_condition(table, spec.query, contains_ignoring_case),
    )


def _filter_condition(resolved: ResolvedFilter[Filterable], database: Engine) -> Condition:
    value = resolved.column.value
    match resolved.filter:
        case stored.DatetimeFilter() as each:
            return COMPARISONS[each.operator](value, literal(each.value, Instant()))
        case stored.StringFilter() as each:
            return _compare_text(value, each.operator, each.value)
        case stored.StringOptionsFilter() as each:
            positive = is_one_of(value, each.value, database)
            return positive if each.operator == "any of" else negate(positive)
        case stored.StringObjectFilter() as each:
            return _compare_text(get_member(value, each.key), each.operator, each.value)
        case stored.NullFilter() as each:
            value = _read(Kind.JSON, value) if resolved.column.type == "stringObject" else value
            return value.is_(None) if each.operator == "is null" else value.is_not(None)
        case each:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")


def _compare_text(value: ColumnElement[Any], operator: str, wanted: str) -> Condition:
    match operator:
        case "=":
            return equals(value, wanted)
        case "contains":
            return contains(value, wanted)
        case "does not contain":
            return negate(contains(value, wanted))
        case "starts with":
            return starts_with(value, wanted)
        case _:
            return ends_with(value, wanted)


def _order(table: DatabaseTable, order: ResolvedOrder | None) -> Keys:
    if order is None:
        return list(table.order)
    value = order.column.value
    # The identity is not repeated: the planner would not see that the rows are already sorted.
    return [(value, order.direction)] + ([] if value is table.identity else [(table.identity, "ASC")])


def _order_by(keys: list[ColumnElement[Any]], order: Keys) -> list[UnaryExpression[Any]]:
    return [sort_by(key, direction) for key, (_, direction) in zip(keys, order, strict=True)]


def _read(kind: Kind, value: ColumnElement[Any]) -> ColumnElement[Any]:
    match kind:
        case Kind.JSON:
            return func.nullif(cast(value, Text), JSON_NULL, type_=Text())
        case Kind.INSTANT:
            return type_coerce(value, DateTime())
        case _:
            return value
