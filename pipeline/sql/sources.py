"""Declares the application's ClickHouse tables that are read, and which of their rows are the latest versions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
    or_,
    table,
    tuple_,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from pipeline.sql.clickhouse import bind_text

Columns = ReadOnlyColumnCollection[str, Any]

ALL_BUT_THE_FIRST = 1_000_000_000


@dataclass(frozen=True)
class Source:
    """A ReplacingMergeTree(event_ts, is_deleted): versions of a row, of which the one with the highest event_ts counts.

    `slot` gives what the sorting key holds besides project and id, and the partition: a Date begins in 1970, a month
    does not. FINAL merges the versions within one slot; versions of one id in different slots are `latest`'s to sort
    out. `identity` is the column that names a row in its project.
    """

    table: TableClause
    slot: Callable[[Columns], tuple[ColumnElement[Any], ...]]
    identity: str = "id"


@dataclass(frozen=True)
class View:
    """Rows that a statement makes for a project and a cutoff: latest versions only, none twice.

    `survey` asks about the table that wide rows are made of.
    """

    select: Callable[[str, datetime], Select[Any]]
    survey: Callable[[str], Select[Any]] | None = None


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
    slot=lambda c: (func.toDate(c.timestamp), func.toYYYYMM(c.timestamp)),
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
    slot=lambda c: (func.toString(c.type), func.toDate(c.start_time), func.toYYYYMM(c.start_time)),
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
    slot=lambda c: (func.toDate(c.timestamp), c.name, func.toYYYYMM(c.timestamp)),
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
    slot=lambda c: (c.dataset_id, c.dataset_run_id),
)


def is_latest(source: Source, rows: FromClause, project_id: str) -> ColumnElement[bool]:
    """Keep a project's latest versions among `rows`, an alias of the source's table that is read FINAL: a PREWHERE.

    Of versions in different slots the one with the highest event_ts counts, the later slot where two are equal. Should
    that one be deleted, FINAL has dropped it, and the row is gone. The condition is about slots alone, so it may, and
    for speed should, be applied before FINAL; conditions on other columns must not.
    """
    place = tuple_(rows.c[source.identity], *source.slot(rows.c))
    return and_(rows.c.project_id == bind_text(project_id), place.not_in(_superseded(source, project_id)))


def _superseded(source: Source, project_id: str) -> Any:
    """Select id and slot of all but the latest of the versions in more than one slot."""
    rows = source.table.alias("versions")
    identity: ColumnElement[str] = rows.c[source.identity]
    slot = [part.label(f"slot{index}") for index, part in enumerate(source.slot(rows.c))]
    newest = func.max(rows.c.event_ts)
    return (
        select(identity, *slot)
        .where(rows.c.project_id == bind_text(project_id), func.cityHash64(identity).in_(_moved(source, project_id)))
        .group_by(identity, *slot)
        .order_by(newest.desc(), *(part.desc() for part in slot))
        .limit_by([identity], ALL_BUT_THE_FIRST, offset=1)
    )


def _moved(source: Source, project_id: str) -> Any:
    """Select the hashes of ids in more than one slot: eight bytes an id, and a collision only costs a look."""
    rows = source.table.alias("places")
    slot = source.slot(rows.c)
    hashed = func.cityHash64(rows.c[source.identity])
    return (
        select(hashed)
        .where(rows.c.project_id == bind_text(project_id))
        .group_by(hashed)
        # Part by part: comparing tuples takes several times as long.
        .having(or_(*(func.min(part) < func.max(part) for part in slot)))
    )
