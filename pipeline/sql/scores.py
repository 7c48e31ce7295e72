"""Compiles what is read of scores: their names, each row's values as one list, and which rows have a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, column, false, func, null, or_, tuple_

from pipeline import request as stored
from pipeline.sql.clickhouse import COMPARED, instant, number, one_of, positions, text
from pipeline.sql.sources import Columns, latest, scores

EXPORTED = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT")
NUMBERS = frozenset({"NUMERIC", "BOOLEAN"})

Asked: TypeAlias = (
    stored.NumberObjectFilter | stored.CategoryOptionsFilter | stored.BooleanObjectFilter | stored.StringOptionsFilter
)


@dataclass(frozen=True)
class Scored:
    """Which scores are a row's: those whose columns `owner` equal the row's `key`, one by one.

    Scores of one name, type, text and execution count once, if they agree in the columns `apart` as well. `only` leaves
    other scores out.
    """

    owner: tuple[str, ...]
    key: tuple[ColumnElement[Any], ...]
    apart: tuple[str, ...] = ()
    only: Callable[[Columns], ColumnElement[bool]] | None = None


def names(project_id: str, cutoff: datetime) -> Select[Any]:
    """Select `name` and `types` (its data types) of all score names that there were at the cutoff, by name."""
    rows = scores.table.alias("s")
    return (
        select(rows.c.name.label("name"), func.arraySort(func.groupUniqArray(rows.c.data_type)).label("types"))
        .final(rows)
        .prewhere(latest(scores, rows, project_id))
        .where(_exported(rows, cutoff))
        .group_by(rows.c.name)
        .order_by(rows.c.name)
    )


def lists(project_id: str, cutoff: datetime, scored: Scored, known: list[str], name: str) -> Subquery:
    """Select `scores`, each owner's as tuples (place among `known`, number, text), and the owner as `owner0` and on.

    The list is sorted. Scores that count once have the average of their numbers; the text of a number is null.
    """
    rows = scores.table.alias("s")
    each = _values(rows, positions(rows.c.name, known), project_id, cutoff, scored)
    owner = [each.c[f"owner{index}"] for index in range(len(scored.owner))]
    collected = func.groupArray(func.tuple(each.c.named, each.c.number, each.c.text))
    return (
        select(*owner, func.arraySort(collected).label("scores"))
        .where(each.c.named > 0, or_(one_of(each.c.type, sorted(NUMBERS)), each.c.text.is_not(None)))
        .group_by(*owner)
        .subquery(name)
    )


def joined(table: Any, project_id: str, cutoff: datetime, levels: Sequence[Scored], known: list[str]) -> Any:
    """Join the scores of all levels to a table; return the join and each row's one list."""
    found: list[ColumnElement[Any]] = []
    for index, scored in enumerate(levels):
        listed = lists(project_id, cutoff, scored, known, f"scored{index}")
        same = (listed.c[f"owner{place}"] == key for place, key in enumerate(scored.key))
        table = table.outerjoin(listed, and_(*same))
        found.append(listed.c.scores)
    return table, found[0] if len(found) == 1 else func.arraySort(func.arrayConcat(*found))


def holds(levels: Sequence[Scored], each: Asked, project_id: str, cutoff: datetime) -> ColumnElement[bool]:
    """Ask whether a row has, on any level, a score that meets the filter's operator, or its positive twin."""
    return or_(false(), *(_among(scored, each, project_id, cutoff) for scored in levels))


def _among(scored: Scored, each: Asked, project_id: str, cutoff: datetime) -> ColumnElement[bool]:
    rows = scores.table.alias("s")
    values = _values(rows, rows.c.name, project_id, cutoff, scored, each)
    owner = [values.c[f"owner{index}"] for index in range(len(scored.owner))]
    key = scored.key[0] if len(scored.key) == 1 else tuple_(*scored.key)
    return key.in_(select(*owner).where(_met(values, each)))


def _met(values: Subquery, each: Asked) -> ColumnElement[bool]:
    v = values.c
    match each:
        case stored.NumberObjectFilter():
            return and_(one_of(v.type, sorted(NUMBERS)), COMPARED[each.operator](v.number, number(each.value)))
        case stored.BooleanObjectFilter():
            return and_(v.type == text("BOOLEAN"), v.number != 0 if each.value else v.number == 0)
        case stored.CategoryOptionsFilter():
            return and_(v.type == text("CATEGORICAL"), one_of(v.text, each.value))
        case stored.StringOptionsFilter():
            said = func.concat(v.named, text(":"), v.text)
            return and_(v.type == text("CATEGORICAL"), one_of(said, each.value))


def _values(
    rows: FromClause,
    named: ColumnElement[Any],
    project_id: str,
    cutoff: datetime,
    scored: Scored,
    each: Asked | None = None,
) -> Subquery:
    """Select the values that count, of one name where the filter has a key, with `named` as what tells names apart."""
    owner: list[ColumnElement[Any]] = [rows.c[name] for name in scored.owner]
    words = case(
        (one_of(rows.c.data_type, sorted(NUMBERS)), null()),
        else_=func.coalesce(rows.c.string_value, func.nullIf(func.max(rows.c.long_string_value), text(""))),
    )
    # Sorted first: a sum of floats depends on its order, and the same export must give the same bytes.
    average = func.arrayAvg(func.arraySort(func.groupArray(rows.c.value)))
    # The name is of the slot: it may be asked before FINAL.
    key = [] if each is None or isinstance(each, stored.StringOptionsFilter) else [rows.c.name == text(each.key)]
    only = [] if scored.only is None else [scored.only(rows.c)]
    return (
        select(
            *(each.label(f"owner{index}") for index, each in enumerate(owner)),
            named.label("named"),
            rows.c.data_type.label("type"),
            average.label("number"),
            words.label("text"),
        )
        .final(rows)
        .prewhere(and_(latest(scores, rows, project_id), *key))
        .where(_exported(rows, cutoff), *(and_(each.is_not(None), each != text("")) for each in owner), *only)
        .group_by(
            *owner,
            column("named"),
            rows.c.data_type,
            rows.c.string_value,
            rows.c.execution_trace_id,
            *(rows.c[name] for name in scored.apart),
        )
        .subquery("each")
    )


def _exported(rows: FromClause, cutoff: datetime) -> ColumnElement[bool]:
    return and_(one_of(rows.c.data_type, EXPORTED), rows.c.created_at <= instant(cutoff))
