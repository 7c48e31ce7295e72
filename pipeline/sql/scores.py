"""Compiles what is read of scores: their names, each row's values as one list, and which rows have a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, column, false, func, null, or_, tuple_

from pipeline import request as stored
from pipeline.sql.clickhouse import COMPARISONS, bind_instant, bind_number, bind_text, find_position, is_one_of
from pipeline.sql.sources import Columns, is_latest, scores

EXPORTED_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT")
NUMBER_TYPES = frozenset({"NUMERIC", "BOOLEAN"})

ScoreFilter: TypeAlias = (
    stored.NumberObjectFilter | stored.CategoryOptionsFilter | stored.BooleanObjectFilter | stored.StringOptionsFilter
)


@dataclass(frozen=True)
class ScoreLevel:
    """Which scores are a row's: those whose columns `owner` equal the row's `key`, one by one.

    Scores of one name, type, text and execution count once, if they agree in the columns `apart` as well. `only` leaves
    other scores out.
    """

    owner: tuple[str, ...]
    key: tuple[ColumnElement[Any], ...]
    apart: tuple[str, ...] = ()
    only: Callable[[Columns], ColumnElement[bool]] | None = None


def select_names(project_id: str, cutoff: datetime) -> Select[Any]:
    """Select `name` and `types` (its data types) of all score names that there were at the cutoff, by name."""
    rows = scores.table.alias("s")
    return (
        select(rows.c.name.label("name"), func.arraySort(func.groupUniqArray(rows.c.data_type)).label("types"))
        .final(rows)
        .prewhere(is_latest(scores, rows, project_id))
        .where(_exported(rows, cutoff))
        .group_by(rows.c.name)
        .order_by(rows.c.name)
    )


def select_lists(project_id: str, cutoff: datetime, scored: ScoreLevel, known: list[str], name: str) -> Subquery:
    """Select `scores`, each owner's as tuples (place among `known`, number, text), and the owner as `owner0` and on.

    The list is sorted. Scores that count once have the average of their numbers; the text of a number is null.
    """
    rows = scores.table.alias("s")
    each = _values(rows, find_position(rows.c.name, known), project_id, cutoff, scored)
    owner = [each.c[f"owner{index}"] for index in range(len(scored.owner))]
    collected = func.groupArray(func.tuple(each.c.named, each.c.number, each.c.text))
    return (
        select(*owner, func.arraySort(collected).label("scores"))
        .where(each.c.named > 0, or_(is_one_of(each.c.type, sorted(NUMBER_TYPES)), each.c.text.is_not(None)))
        .group_by(*owner)
        .subquery(name)
    )


def join_scores(table: Any, project_id: str, cutoff: datetime, levels: Sequence[ScoreLevel], known: list[str]) -> Any:
    """Join the scores of all levels to a table; return the join and each row's one list."""
    found: list[ColumnElement[Any]] = []
    for index, scored in enumerate(levels):
        listed = select_lists(project_id, cutoff, scored, known, f"scored{index}")
        same = (listed.c[f"owner{place}"] == key for place, key in enumerate(scored.key))
        table = table.outerjoin(listed, and_(*same))
        found.append(listed.c.scores)
    return table, found[0] if len(found) == 1 else func.arraySort(func.arrayConcat(*found))


def has_score(
    levels: Sequence[ScoreLevel], each: ScoreFilter, project_id: str, cutoff: datetime
) -> ColumnElement[bool]:
    """Ask whether a row has, on any level, a score that meets the filter's operator, or its positive twin."""
    return or_(false(), *(_among(scored, each, project_id, cutoff) for scored in levels))


def _among(scored: ScoreLevel, each: ScoreFilter, project_id: str, cutoff: datetime) -> ColumnElement[bool]:
    rows = scores.table.alias("s")
    values = _values(rows, rows.c.name, project_id, cutoff, scored, each)
    owner = [values.c[f"owner{index}"] for index in range(len(scored.owner))]
    key = scored.key[0] if len(scored.key) == 1 else tuple_(*scored.key)
    return key.in_(select(*owner).where(_met(values, each)))


def _met(values: Subquery, each: ScoreFilter) -> ColumnElement[bool]:
    v = values.c
    match each:
        case stored.NumberObjectFilter():
            return and_(
                is_one_of(v.type, sorted(NUMBER_TYPES)), COMPARISONS[each.operator](v.number, bind_number(each.value))
            )
        case stored.BooleanObjectFilter():
            return and_(v.type == bind_text("BOOLEAN"), v.number != 0 if each.value else v.number == 0)
        case stored.CategoryOptionsFilter():
            return and_(v.type == bind_text("CATEGORICAL"), is_one_of(v.text, each.value))
        case stored.StringOptionsFilter():
            said = func.concat(v.named, bind_text(":"), v.text)
            return and_(v.type == bind_text("CATEGORICAL"), is_one_of(said, each.value))


def _values(
    rows: FromClause,
    named: ColumnElement[Any],
    project_id: str,
    cutoff: datetime,
    scored: ScoreLevel,
    each: ScoreFilter | None = None,
) -> Subquery:
    """Select the values that count, of one name where the filter has a key, with `named` as what tells names apart."""
    owner: list[ColumnElement[Any]] = [rows.c[name] for name in scored.owner]
    words = case(
        (is_one_of(rows.c.data_type, sorted(NUMBER_TYPES)), null()),
        else_=func.coalesce(rows.c.string_value, func.nullIf(func.max(rows.c.long_string_value), bind_text(""))),
    )
    # Sorted first: a sum of floats depends on its order, and the same export must give the same bytes.
    average = func.arrayAvg(func.arraySort(func.groupArray(rows.c.value)))
    # The name is of the slot: it may be asked before FINAL.
    key = [] if each is None or isinstance(each, stored.StringOptionsFilter) else [rows.c.name == bind_text(each.key)]
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
        .prewhere(and_(is_latest(scores, rows, project_id), *key))
        .where(_exported(rows, cutoff), *(and_(each.is_not(None), each != bind_text("")) for each in owner), *only)
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
    return and_(is_one_of(rows.c.data_type, EXPORTED_TYPES), rows.c.created_at <= bind_instant(cutoff))
