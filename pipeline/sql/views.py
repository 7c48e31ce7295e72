"""Compiles views of events as traces, observations and sessions, with the columns of those tables."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import DateTime64, Nullable
from sqlalchemy import ColumnElement, Select, String, case, cast, func, null, true

from pipeline.sql import sources
from pipeline.sql.clickhouse import bind_bool, bind_text, to_utc
from pipeline.sql.events import (
    events,
    get_metadata,
    get_trace_name,
    is_experiment_root,
    null_if_empty,
    to_plain_text,
)
from pipeline.sql.named_values import bind_project
from pipeline.sql.sources import Columns, is_latest, scores
from pipeline.sql.usage import get_total, seconds_crossed, sum_containing_ignoring_case

SAME = (
    *("trace_id", "project_id", "start_time", "end_time", "name", "provided_usage_details", "usage_details"),
    *("provided_cost_details", "cost_details", "completion_start_time", "prompt_version", "created_at", "updated_at"),
    *("usage_pricing_tier_id", "usage_pricing_tier_name", "tool_definitions", "tool_calls", "tool_call_names"),
    "is_app_root",
)
PLAIN = ("type", "environment", "level")
GIVEN = (
    *("status_message", "version", "input", "output", "provided_model_name", "model_parameters", "prompt_id"),
    "prompt_name",
)
OF_EVENTS = (
    *("release", "source", "ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"),
    *("experiment_id", "experiment_name", "experiment_dataset_id"),
)
RENAMED = {"parent_observation_id": "parent_span_id", "internal_model_id": "model_id"}


def select_observations(project_id: str, _members: ColumnElement[bool]) -> Select[Any]:
    """Select a project's events as observations; missing text is null where an observation's may be null.

    Besides the columns of an observation there are `trace_…`, which events repeat from their trace, `minute`, which
    events are sorted by, and others that only events have.
    """
    rows = events.table.alias("e")
    e = rows.c
    return (
        select(
            e.span_id.label("id"),
            *(e[name] for name in SAME),
            *(to_plain_text(e[name]).label(name) for name in PLAIN),
            *(null_if_empty(e[name]).label(name) for name in GIVEN),
            *(null_if_empty(e[source]).label(name) for name, source in RENAMED.items()),
            get_trace_name(e).label("trace_name"),
            null_if_empty(e.user_id).label("trace_user"),
            null_if_empty(e.session_id).label("trace_session"),
            null_if_empty(e.environment).label("trace_environment"),
            e.tags.label("trace_tags"),
            cast(null(), Nullable(DateTime64(3))).label("trace_timestamp"),
            get_metadata(e).label("metadata"),
            func.toStartOfMinute(e.start_time).label("minute"),
            *(to_plain_text(e[name]).label(name) for name in OF_EVENTS),
            is_experiment_root(e).label("is_experiment_root"),
        )
        .final(rows)
        .prewhere(is_latest(events, rows, project_id))
    )


def select_traces(project_id: str, _members: ColumnElement[bool]) -> Select[Any]:
    """Select the traces that a project's events make up.

    Input, output, metadata and bookmarked are those of the root, the earliest event without a parent. Values that every
    event repeats are taken from the event with the highest event_ts that has one. Wide columns are read from one event,
    the carrier, so that only narrow ones are grouped and joined; it is sorted by `carrier_minute` and `carrier_hash`.
    """
    rows, narrow = events.table.alias("e"), _summaries(project_id).subquery("summaries")
    e = rows.c
    root = e.parent_span_id == bind_text("")
    return (
        select(
            *(each.label(each.name) for each in narrow.c if each.name not in {"carrier", "there"}),
            case((root, null_if_empty(e.input))).label("input"),
            case((root, null_if_empty(e.output))).label("output"),
            func.IF(root, get_metadata(e), func.map()).label("metadata"),
            func.toStartOfMinute(e.start_time).label("carrier_minute"),
            func.xxHash32(e.trace_id).label("carrier_hash"),
        )
        # An inner join would lose the order of the table.
        .select_from(rows.outerjoin(narrow, narrow.c.carrier == e.span_id))
        .final(rows)
        .prewhere(is_latest(events, rows, project_id))
        .where(narrow.c.there)
    )


def select_traces_of_scores(project_id: str, _cutoff: datetime) -> Select[Any]:
    """Select the columns that scores show of their trace, for the traces with scores, with the key `traced_key`."""
    scored = scores.table.alias("scored")
    having_scores = select(scored.c.trace_id).where(scored.c.project_id == bind_project(project_id))
    narrow = _summaries(project_id, having_scores).subquery("summaries").c
    return select(
        narrow.id.label("traced_key"),
        func.toNullable(narrow.name).label("trace_name"),
        narrow.user_id.label("trace_user"),
        narrow.tags.label("trace_tags"),
    )


def select_survey(project_id: str, wide: Sequence[str]) -> Select[Any]:
    """Return the survey of a project's events; `wide` names the columns that make a row large."""
    rows = events.table.alias("e")
    return sources.select_survey(rows, [rows.c[name] for name in wide], rows.c.start_time, project_id)


def _summaries(project_id: str, trace_ids: Select[Any] | None = None) -> Select[Any]:
    """Aggregate the events of each trace; its `carrier` is the root or, without one, the earliest event."""
    rows = events.table.alias("of_trace")
    e = rows.c
    root_name = func.argMinIf(e.name, func.tuple(e.start_time, e.span_id), e.parent_span_id == bind_text(""))
    first = func.tuple(e.parent_span_id != bind_text(""), e.start_time, e.span_id)
    return (
        select(
            e.trace_id.label("id"),
            func.argMin(e.span_id, first).label("carrier"),
            func.min(e.start_time).label("timestamp"),
            func.coalesce(func.nullIf(_repeated(e, "trace_name"), bind_text("")), root_name, type_=String()).label(
                "name"
            ),
            func.nullIf(_repeated(e, "user_id"), bind_text("")).label("user_id"),
            func.nullIf(_repeated(e, "session_id"), bind_text("")).label("session_id"),
            func.nullIf(_repeated(e, "release"), bind_text("")).label("release"),
            func.nullIf(_repeated(e, "version"), bind_text("")).label("version"),
            to_plain_text(_repeated(e, "environment")).label("environment"),
            func.arraySort(func.groupUniqArrayArray(e.tags)).label("tags"),
            func.argMin(e.bookmarked & (e.parent_span_id == bind_text("")), first).label("bookmarked"),
            func.max(e.public).label("public"),
            bind_bool(value=True).label("there"),
        )
        .final(rows)
        .prewhere(is_latest(events, rows, project_id))
        .where(true() if trace_ids is None else e.trace_id.in_(trace_ids))
        .group_by(e.trace_id)
    )


def select_sessions(project_id: str, _members: ColumnElement[bool]) -> Select[Any]:
    """Select a project's sessions as they are now: its events that share a session id."""
    rows = events.table.alias("e")
    e = rows.c
    last = func.max(func.coalesce(e.end_time, e.start_time))
    return (
        select(
            e.session_id.label("id"),
            func.arraySort(func.groupUniqArrayIf(e.user_id, e.user_id != bind_text(""))).label("user_ids"),
            func.arraySort(func.arrayRemove(func.groupUniqArrayArray(e.tags), bind_text(""))).label("tags"),
            func.uniqExact(e.trace_id).label("traces"),
            to_utc(func.min(e.start_time)).label("created_at"),
            null_if_empty(func.argMax(e.environment, func.tuple(e.start_time, e.span_id))).label("environment"),
            seconds_crossed(func.min(e.start_time), last).label("duration"),
            *(_summed(e.cost_details, "cost")),
            *(_summed(e.usage_details, "tokens")),
        )
        .final(rows)
        .prewhere(is_latest(events, rows, project_id))
        .where(e.session_id != bind_text(""))
        .group_by(e.session_id)
    )


def select_with_member(
    project_id: str, _members: ColumnElement[bool], met: Callable[[ColumnElement[Any]], ColumnElement[bool]]
) -> Select[Any]:
    """Select the ids of sessions that have an event whose metadata meets a condition."""
    rows = events.table.alias("m")
    return (
        select(rows.c.session_id)
        .final(rows)
        .prewhere(is_latest(events, rows, project_id))
        .where(rows.c.session_id != bind_text(""), met(get_metadata(rows.c)))
    )


def _summed(details: ColumnElement[Any], of: str) -> tuple[ColumnElement[Any], ...]:
    """Sum the usage or the cost of events."""
    return (
        func.sum(sum_containing_ignoring_case(details, "input")).label(f"input_{of}"),
        func.sum(sum_containing_ignoring_case(details, "output")).label(f"output_{of}"),
        func.sum(get_total(details)).label(f"total_{of}"),
    )


def _repeated(e: Columns, name: str) -> ColumnElement[str]:
    """Return a text from the event with the highest event_ts that has one; empty if none has."""
    return func.argMaxIf(e[name], func.tuple(e.event_ts, e.span_id), e[name] != bind_text(""))
