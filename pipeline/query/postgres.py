"""Compiles the statements of one export of a table in Postgres or SQLite; filters mean what they do in ClickHouse."""

from typing import Any

from sqlalchemy import ColumnElement, DateTime, Engine, Select, Text, and_, cast, func, literal, select, type_coerce
from sqlalchemy.sql.elements import UnaryExpression

from config.errors import Rejected
from config.tables import Instant
from pipeline import request as stored
from pipeline.database import among
from pipeline.query.filters import filtered
from pipeline.query.order import sorted_by
from pipeline.query.search import matches
from pipeline.spec import ExportSpec
from pipeline.sql.clickhouse import COMPARISONS
from pipeline.sql.postgres import (
    Direction,
    contains,
    contains_ignoring_case,
    ends_with,
    equals,
    get_member,
    negate,
    sort_by,
    starts_with,
    to_sort_key,
)
from pipeline.tables.clickhouse_table import Filterable
from pipeline.tables.database_table import Relational
from pipeline.types import Kind

Condition = ColumnElement[bool]
JSON_NULL = "null"


def rows(table: Relational, spec: ExportSpec, database: Engine) -> Select[Any]:
    """Select the rows, a column for each of the table's fields.

    They are sorted inside, and made into what is read outside: a sort moves big values by their addresses as long as
    nothing is computed of them. With a row limit, one row more than it is asked for: it tells whether the limit cut
    anything off. Raises Rejected for what the table can't honour.
    """
    order = _order(table, spec.query.order_by)
    keys = [to_sort_key(value) for value, _ in order]
    inside = (
        select(
            *(field.value.label(f"c{place}") for place, field in enumerate(table.fields)),
            *(key.label(f"k{place}") for place, key in enumerate(keys)),
        )
        .select_from(table.rows)
        .where(table.counted(spec.project_id), _wanted(table, spec, database))
        .order_by(*_directed(keys, order))
        .limit(None if spec.output.row_limit is None else spec.output.row_limit + 1)
        .subquery("ordered")
    )
    values = [_read(field.kind, inside.c[f"c{place}"]) for place, field in enumerate(table.fields)]
    return select(*values).order_by(*_directed([inside.c[f"k{place}"] for place in range(len(keys))], order))


def widest(table: Relational, spec: ExportSpec) -> Select[Any]:
    """Select the bytes that the widest of the project's rows takes in storage, where it may be compressed."""
    size: ColumnElement[int] = literal(0)
    for value in table.wide:
        size += func.coalesce(func.pg_column_size(value), 0)
    return select(func.max(size)).select_from(table.rows).where(table.counted(spec.project_id))


def _wanted(table: Relational, spec: ExportSpec, database: Engine) -> Condition:
    return and_(
        table.moment < literal(spec.created_at, Instant()),
        *(_condition(filtered(table, each), each, database) for each in spec.query.filter or ()),
        matches(table, spec.query, contains_ignoring_case),
    )


def _condition(column: Filterable, each: stored.Filter, database: Engine) -> Condition:
    value = column.value
    match each:
        case stored.DatetimeFilter():
            return COMPARISONS[each.operator](value, literal(each.value, Instant()))
        case stored.StringFilter():
            return _text(value, each.operator, each.value)
        case stored.StringOptionsFilter():
            found = among(value, each.value, database)
            return found if each.operator == "any of" else negate(found)
        case stored.StringObjectFilter():
            return _text(get_member(value, each.key), each.operator, each.value)
        case stored.NullFilter():
            return value.is_(None) if each.operator == "is null" else value.is_not(None)
        case _:
            raise Rejected(f"A filter of type {each.type!r} can't be honoured.")


def _text(value: ColumnElement[Any], asked: str, wanted: str) -> Condition:
    match asked:
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


def _order(table: Relational, order_by: stored.OrderBy | None) -> list[tuple[ColumnElement[Any], Direction]]:
    if order_by is None:
        return list(table.order)
    asked = sorted_by(table, order_by).value
    # A key twice over would hide from the planner that the rows are sorted already.
    return [(asked, order_by.order)] + ([] if asked is table.identity else [(table.identity, "ASC")])


def _directed(
    keys: list[ColumnElement[Any]], order: list[tuple[ColumnElement[Any], Direction]]
) -> list[UnaryExpression[Any]]:
    return [sort_by(key, direction) for key, (_, direction) in zip(keys, order, strict=True)]


def _read(kind: Kind, value: ColumnElement[Any]) -> ColumnElement[Any]:
    match kind:
        case Kind.JSON:
            return func.nullif(cast(value, Text), JSON_NULL, type_=Text())
        case Kind.INSTANT:
            return type_coerce(value, DateTime())
        case _:
            return value
