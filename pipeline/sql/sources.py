"""Declares Langfuse's ClickHouse tables, and compiles what all reads of them share: latest versions, and the survey."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, DateTime64, Decimal, Map, UInt64
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    String,
    TableClause,
    and_,
    column,
    func,
    literal,
    or_,
    table,
    tuple_,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from pipeline.sql.clickhouse import EPOCH, is_after
from pipeline.sql.named_values import bind_project

Columns = ReadOnlyColumnCollection[str, Any]

ALL_BUT_THE_FIRST = 1_000_000_000
WIDE_ROW = 1 << 20
"""A row of more bytes is counted as wide by the survey."""
STEPS = (4 << 10, 32 << 10, 256 << 10)
"""The survey counts the bytes of the rows that are larger than each of these sizes."""


@dataclass(frozen=True)
class Source:
    """A ReplacingMergeTree(event_ts, is_deleted): of the versions of a row, the one with the highest event_ts counts.

    `merge_key` returns the parts of the sorting key besides project and id, and the partition (a Date begins in 1970, a
    month does not). FINAL merges only versions with the same merge key; `is_latest` decides between those of one id
    with different merge keys. `identity` is the column that identifies a row in its project. `later` are the columns
    that an older Langfuse does not have; every one has the others.
    """

    table: TableClause
    merge_key: Callable[[Columns], tuple[ColumnElement[Any], ...]]
    identity: str = "id"
    later: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """Rows that a statement computes for a project: latest versions only, each row once.

    `select` takes the project and a condition on the members that rows are aggregated from. `survey` takes the project
    and the names of the wide columns, and compiles the survey of the table that they are computed from; None where rows
    are narrow.
    """

    select: Callable[[str, ColumnElement[bool]], Select[Any]]
    survey: Callable[[str, Sequence[str]], Select[Any]] | None = None


traces = Source(
    table(
        "traces",
        column("id", String()),
        column("timestamp", DateTime64(3)),
        column("name", String()),
        column("user_id", String()),
        column("metadata", Map(ChString(), ChString())),
        column("release", String()),
        column("version", String()),
        column("project_id", String()),
        column("environment", String()),
        column("public", Boolean()),
        column("bookmarked", Boolean()),
        column("tags", Array(ChString())),
        column("input", String()),
        column("output", String()),
        column("session_id", String()),
        column("event_ts", DateTime64(3)),
        column("is_deleted", Integer()),
    ),
    merge_key=lambda c: (func.toDate(c.timestamp), func.toYYYYMM(c.timestamp)),
    later=frozenset({"environment"}),
)

observations = Source(
    table(
        "observations",
        *(
            column(name, String())
            for name in (
                *("id", "trace_id", "project_id", "environment", "type", "parent_observation_id", "name", "level"),
                *("status_message", "version", "input", "output", "provided_model_name", "internal_model_id"),
                *("model_parameters", "prompt_id", "prompt_name", "usage_pricing_tier_id", "usage_pricing_tier_name"),
            )
        ),
        *(
            column(name, DateTime64(3))
            for name in ("start_time", "end_time", "completion_start_time", "created_at", "updated_at", "event_ts")
        ),
        column("metadata", Map(ChString(), ChString())),
        column("provided_usage_details", Map(ChString(), UInt64())),
        column("usage_details", Map(ChString(), UInt64())),
        column("provided_cost_details", Map(ChString(), Decimal(18, 12))),
        column("cost_details", Map(ChString(), Decimal(18, 12))),
        column("prompt_version", Integer()),
        column("tool_definitions", Map(ChString(), ChString())),
        column("tool_calls", Array(ChString())),
        column("tool_call_names", Array(ChString())),
        column("is_deleted", Integer()),
    ),
    merge_key=lambda c: (func.toString(c.type), func.toDate(c.start_time), func.toYYYYMM(c.start_time)),
    later=frozenset(
        {
            *("environment", "usage_pricing_tier_id", "usage_pricing_tier_name"),
            *("tool_definitions", "tool_calls", "tool_call_names"),
        }
    ),
)

scores = Source(
    table(
        "scores",
        column("id", String()),
        column("timestamp", DateTime64(3)),
        column("project_id", String()),
        column("environment", String()),
        column("trace_id", String()),
        column("session_id", String()),
        column("dataset_run_id", String()),
        column("observation_id", String()),
        column("name", String()),
        column("value", Float()),
        column("source", String()),
        column("comment", String()),
        column("metadata", Map(ChString(), ChString())),
        column("author_user_id", String()),
        column("data_type", String()),
        column("string_value", String()),
        column("long_string_value", String()),
        column("execution_trace_id", String()),
        column("created_at", DateTime64(3)),
        column("event_ts", DateTime64(3)),
        column("is_deleted", Integer()),
    ),
    merge_key=lambda c: (func.toDate(c.timestamp), c.name, func.toYYYYMM(c.timestamp)),
    later=frozenset(
        {
            *("environment", "metadata", "session_id", "dataset_run_id", "execution_trace_id", "long_string_value"),
        }
    ),
)

dataset_run_items = Source(
    table(
        "dataset_run_items_rmt",
        column("id", String()),
        column("project_id", String()),
        column("dataset_run_id", String()),
        column("dataset_item_id", String()),
        column("dataset_id", String()),
        column("trace_id", String()),
        column("observation_id", String()),
        column("created_at", DateTime64(3)),
        column("updated_at", DateTime64(3)),
        column("event_ts", DateTime64(3)),
        column("is_deleted", Integer()),
    ),
    merge_key=lambda c: (c.dataset_id, c.dataset_run_id),
)


IsLatest: TypeAlias = Callable[[Source, FromClause, str], ColumnElement[bool]]
"""`is_latest` or `is_latest_of_few`."""


def is_latest(source: Source, rows: FromClause, project_id: str) -> ColumnElement[bool]:
    """Return the PREWHERE that keeps the latest versions in a project; `rows` is an alias of the source, read FINAL.

    Of versions with different merge keys the one with the highest event_ts counts, or the higher merge key where they
    are equal. If that version is deleted, FINAL has dropped it, and the row is gone. The condition depends on merge
    keys alone, so it may be applied before FINAL, which is faster; conditions on other columns must not.
    """
    place = tuple_(rows.c[source.identity], *source.merge_key(rows.c))
    return and_(rows.c.project_id == bind_project(project_id), place.not_in(_select_superseded(source, project_id)))


def is_latest_of_few(source: Source, rows: FromClause, project_id: str) -> ColumnElement[bool]:
    """Return the same condition as `is_latest`; it takes half the time where a project has few rows.

    It takes a multiple of the memory for each row, because it collects all IDs and not only those of moved rows.
    """
    versions = source.table.alias("versions")
    identity: ColumnElement[str] = versions.c[source.identity]
    merge_key = source.merge_key(versions.c)
    newest = func.argMax(func.tuple(*merge_key), func.tuple(versions.c.event_ts, *merge_key))
    latest = select(identity, newest).where(versions.c.project_id == bind_project(project_id)).group_by(identity)
    place = tuple_(rows.c[source.identity], func.tuple(*source.merge_key(rows.c)))
    return and_(rows.c.project_id == bind_project(project_id), place.in_(latest))


def measure(wide: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """Return the bytes that a row has in these columns."""
    size: ColumnElement[int] = literal(0)
    for value in wide:
        size += func.coalesce(func.length(value), func.toUInt64(0))
    return size


def select_survey(
    rows: FromClause, wide: Sequence[ColumnElement[Any]], moment: ColumnElement[Any], project_id: str
) -> Select[Any]:
    """Select what must be known of a project's rows, in all their versions, before they are read.

    `bytes` is the size of the widest row in the columns `wide`, `all_bytes` that of all rows, `wide_bytes` that of all
    rows of more than WIDE_ROW, `over_<size>` that of all rows of more than each of STEPS. `by_day` is whether all days
    are in toDate()'s range, `rows` the number of rows.
    """
    # In a subquery, because the server analyses each mention of an expression.
    measured = select(measure(wide).label("size"), moment.label("moment")).select_from(rows)
    sized = measured.where(rows.c.project_id == bind_project(project_id)).subquery("sized").c
    return select(
        func.max(sized.size).label("bytes"),
        func.sum(sized.size).label("all_bytes"),
        func.sumIf(sized.size, sized.size > WIDE_ROW).label("wide_bytes"),
        *(func.sumIf(sized.size, sized.size > step).label(f"over_{step}") for step in STEPS),
        is_after(func.min(sized.moment), EPOCH, inclusive=True).label("by_day"),
        func.count().label("rows"),
    )


def _select_superseded(source: Source, project_id: str) -> Any:
    """Select id and merge key of all but the latest version, for the ids with more than one merge key."""
    rows = source.table.alias("versions")
    identity: ColumnElement[str] = rows.c[source.identity]
    merge_key = [part.label(f"merge_key{index}") for index, part in enumerate(source.merge_key(rows.c))]
    newest = func.max(rows.c.event_ts)
    return (
        select(identity, *merge_key)
        .where(
            rows.c.project_id == bind_project(project_id),
            func.cityHash64(identity).in_(_select_moved(source, project_id)),
        )
        .group_by(identity, *merge_key)
        .order_by(newest.desc(), *(part.desc() for part in merge_key))
        .limit_by([identity], ALL_BUT_THE_FIRST, offset=1)
    )


def _select_moved(source: Source, project_id: str) -> Any:
    """Select hashes of the ids with more than one merge key: 8 bytes per id, and a collision only costs a lookup."""
    rows = source.table.alias("places")
    merge_key = source.merge_key(rows.c)
    hashed = func.cityHash64(rows.c[source.identity])
    return (
        select(hashed)
        .where(rows.c.project_id == bind_project(project_id))
        .group_by(hashed)
        # Part by part, because comparing tuples takes several times as long.
        .having(or_(*(func.min(part) < func.max(part) for part in merge_key)))
    )
