"""Compiles queries of scores: their names, the values of each row as one list, and the rows that have a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, column, false, func, null, or_, tuple_

from pipeline import request as stored
from pipeline.sql.clickhouse import COMPARISONS, bind_number, bind_text, is_one_of
from pipeline.sql.named_values import bind_cutoff, find_score_position
from pipeline.sql.sources import Columns, IsLatest, is_latest, scores

EXPORTED_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT")
NUMBER_TYPES = frozenset({"NUMERIC", "BOOLEAN"})

UNKNOWN_NAME = "a score has a name that was not listed before"

ScoreFilter: TypeAlias = (
    stored.NumberObjectFilter | stored.CategoryOptionsFilter | stored.BooleanObjectFilter | stored.StringOptionsFilter
)


@dataclass(frozen=True)
class ScoreLevel:
    """Which scores belong to a row: those whose columns `owner` equal the row's `key`, pairwise.

    Scores with the same name, type, text and execution count once, if they also agree in the columns `distinct_by`.
    `only` is a condition that excludes other scores. `categories` are the data types that filters of categories find.
    `owners` selects the keys of the rows whose scores are wanted, `names` are the scores that are wanted; None: all.
    """

    owner: tuple[str, ...]
    key: tuple[ColumnElement[Any], ...]
    distinct_by: tuple[str, ...] = ()
    only: Callable[[Columns], ColumnElement[bool]] | None = None
    categories: tuple[str, ...] = ("CATEGORICAL", "TEXT")
    owners: Select[Any] | None = None
    names: tuple[str, ...] | None = None


def select_names(project_id: str, cutoff: datetime) -> Select[Any]:
    """Select `name` and `types` (its data types) of all score names that existed at the cutoff."""
    rows = scores.table.alias("s")
    return (
        select(rows.c.name.label("name"), func.arraySort(func.groupUniqArray(rows.c.data_type)).label("types"))
        .final(rows)
        .prewhere(is_latest(scores, rows, project_id))
        .where(_is_exported(rows, cutoff))
        .group_by(rows.c.name)
    )


def collect_names(project_id: str, cutoff: datetime) -> ColumnElement[Any]:
    """Return the rows of `select_names` as one value: the list of pairs of name and types."""
    names = select_names(project_id, cutoff).subquery("names")
    pairs = func.arraySort(func.groupArray(func.tuple(names.c.name, names.c.types)))
    return select(pairs).select_from(names).scalar_subquery()


def select_lists(
    project_id: str, cutoff: datetime, level: ScoreLevel, known: list[str], name: str, latest: IsLatest
) -> Subquery:
    """Select the `scores` of each owner as tuples (place in `known`, number, text), and the owner as `owner0` etc.

    The list is sorted. Scores that count once have the average of their numbers. The text of a number is null. The
    statement fails if a score has another name than the known ones: its file would lack a column.
    """
    rows = scores.table.alias("s")
    each = _values(rows, find_score_position(rows.c.name, known), project_id, cutoff, level, latest)
    owner = [each.c[f"owner{index}"] for index in range(len(level.owner))]
    collected = func.groupArray(func.tuple(each.c.named, each.c.number, each.c.text))
    return (
        select(*owner, func.arraySort(collected).label("scores"))
        .where(
            func.throwIf(each.c.named == 0, bind_text(UNKNOWN_NAME)) == 0,
            or_(is_one_of(each.c.type, sorted(NUMBER_TYPES)), each.c.text.is_not(None)),
        )
        .group_by(*owner)
        .subquery(name)
    )


def join_scores(
    table: Any, project_id: str, cutoff: datetime, levels: Sequence[ScoreLevel], known: list[str], latest: IsLatest
) -> Any:
    """Join the scores of all levels to a table; return the join and the list of each row's scores."""
    found: list[ColumnElement[Any]] = []
    for index, level in enumerate(levels):
        listed = select_lists(project_id, cutoff, level, known, f"scored{index}", latest)
        same = (listed.c[f"owner{place}"] == key for place, key in enumerate(level.key))
        table = table.outerjoin(listed, and_(*same))
        found.append(listed.c.scores)
    return table, found[0] if len(found) == 1 else func.arraySort(func.arrayConcat(*found))


def has_score(
    levels: Sequence[ScoreLevel], each: ScoreFilter, project_id: str, cutoff: datetime
) -> ColumnElement[bool]:
    """Return whether a row has, on any level, a score that meets the filter, or the opposite of a negative filter."""
    return or_(false(), *(_has_score(level, each, project_id, cutoff) for level in levels))


def _has_score(level: ScoreLevel, each: ScoreFilter, project_id: str, cutoff: datetime) -> ColumnElement[bool]:
    rows = scores.table.alias("s")
    values = _values(rows, rows.c.name, project_id, cutoff, level, is_latest, each=each)
    owner = [values.c[f"owner{index}"] for index in range(len(level.owner))]
    key = level.key[0] if len(level.key) == 1 else tuple_(*level.key)
    return key.in_(select(*owner).where(_matches(values, each, level.categories)))


def _matches(values: Subquery, each: ScoreFilter, categories: tuple[str, ...]) -> ColumnElement[bool]:
    v = values.c
    match each:
        case stored.NumberObjectFilter():
            return and_(
                is_one_of(v.type, sorted(NUMBER_TYPES)), COMPARISONS[each.operator](v.number, bind_number(each.value))
            )
        case stored.BooleanObjectFilter():
            return and_(v.type == bind_text("BOOLEAN"), v.number != 0 if each.value else v.number == 0)
        case stored.CategoryOptionsFilter():
            return and_(is_one_of(v.type, categories), is_one_of(v.text, each.value))
        case stored.StringOptionsFilter():
            name_and_text = func.concat(v.named, bind_text(":"), v.text)
            return and_(is_one_of(v.type, categories), is_one_of(name_and_text, each.value))


def _values(  # noqa: PLR0913 (as `join_scores`, and a filter)
    rows: FromClause,
    named: ColumnElement[Any],
    project_id: str,
    cutoff: datetime,
    level: ScoreLevel,
    latest: IsLatest,
    *,
    each: ScoreFilter | None = None,
) -> Subquery:
    """Select the values that count; only those of one name where the filter has a key. `named` identifies the name."""
    owner: list[ColumnElement[Any]] = [rows.c[name] for name in level.owner]
    text = case(
        (is_one_of(rows.c.data_type, sorted(NUMBER_TYPES)), null()),
        else_=func.coalesce(rows.c.string_value, func.nullIf(func.max(rows.c.long_string_value), bind_text(""))),
    )
    # Sorted first: a sum of floats depends on its order, and the same export must give the same bytes.
    average = func.arrayAvg(func.arraySort(func.groupArray(rows.c.value)))
    # The name is part of the merge key, so it may be compared before FINAL.
    key = [] if each is None or isinstance(each, stored.StringOptionsFilter) else [rows.c.name == bind_text(each.key)]
    if level.names is not None:
        key.append(is_one_of(rows.c.name, level.names))
    only = [] if level.only is None else [level.only(rows.c)]
    if level.owners is not None:
        only.append((owner[0] if len(owner) == 1 else tuple_(*owner)).in_(level.owners))
    return (
        select(
            *(each.label(f"owner{index}") for index, each in enumerate(owner)),
            named.label("named"),
            rows.c.data_type.label("type"),
            average.label("number"),
            text.label("text"),
        )
        .final(rows)
        .prewhere(and_(latest(scores, rows, project_id), *key))
        .where(_is_exported(rows, cutoff), *(and_(each.is_not(None), each != bind_text("")) for each in owner), *only)
        .group_by(
            *owner,
            column("named"),
            rows.c.data_type,
            rows.c.string_value,
            rows.c.execution_trace_id,
            *(rows.c[name] for name in level.distinct_by),
        )
        .subquery("each")
    )


def _is_exported(rows: FromClause, cutoff: datetime) -> ColumnElement[bool]:
    return and_(is_one_of(rows.c.data_type, EXPORTED_TYPES), rows.c.created_at <= bind_cutoff(cutoff))
