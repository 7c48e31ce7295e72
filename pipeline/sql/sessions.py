"""Compiles sessions: the traces of a project with the same session id, and the totals of their observations."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, Select, Subquery, and_, func

from pipeline.sql.clickhouse import bind_text, to_utc
from pipeline.sql.sources import is_latest, observations, traces
from pipeline.sql.usage import get_total, sum_containing, to_cost


def select_sessions(project_id: str, _cutoff: datetime) -> Select[Any]:
    """Select a project's sessions as they are now, by the latest versions of their traces and observations."""
    members, spans = _members(project_id), _spans(project_id)
    return select(*members.c, *(each for each in spans.c if each is not spans.c.owner)).select_from(
        members.outerjoin(spans, spans.c.owner == members.c.id)
    )


def select_with_member(project_id: str, met: Callable[[ColumnElement[Any]], ColumnElement[bool]]) -> Select[Any]:
    """Select the ids of sessions that have a trace whose metadata meets a condition."""
    rows = traces.table.alias("m")
    return (
        select(rows.c.session_id)
        .final(rows)
        .prewhere(is_latest(traces, rows, project_id))
        .where(_in_session(rows.c.session_id), met(rows.c.metadata))
    )


def _members(project_id: str) -> Subquery:
    rows = traces.table.alias("m")
    newest = func.tuple(rows.c.timestamp, rows.c.id)
    return (
        select(
            func.assumeNotNull(rows.c.session_id).label("id"),
            _distinct(func.groupUniqArray(rows.c.user_id)).label("user_ids"),
            _distinct(func.groupUniqArrayArray(rows.c.tags)).label("tags"),
            func.count().label("traces"),
            to_utc(func.min(rows.c.timestamp)).label("created_at"),
            func.nullIf(func.toString(func.argMax(rows.c.environment, newest)), bind_text("")).label("environment"),
        )
        .final(rows)
        .prewhere(is_latest(traces, rows, project_id))
        .where(_in_session(rows.c.session_id))
        .group_by(rows.c.session_id)
        .subquery("members")
    )


def _spans(project_id: str) -> Subquery:
    rows, owners = observations.table.alias("o"), _owners(project_id).subquery("owners")
    o = rows.c
    first, last = func.min(o.start_time), func.max(func.coalesce(o.end_time, o.start_time))
    passed = func.toUnixTimestamp64Milli(last) - func.toUnixTimestamp64Milli(first)
    return (
        select(
            owners.c.session_id.label("owner"),
            func.toNullable(func.intDiv(passed, 1000)).label("duration"),
            to_cost(func.sum(sum_containing(o.cost_details, "input"))).label("input_cost"),
            to_cost(func.sum(sum_containing(o.cost_details, "output"))).label("output_cost"),
            to_cost(func.sum(get_total(o.cost_details))).label("total_cost"),
            func.sum(sum_containing(o.usage_details, "input")).label("input_tokens"),
            func.sum(sum_containing(o.usage_details, "output")).label("output_tokens"),
            func.sum(get_total(o.usage_details)).label("total_tokens"),
        )
        .select_from(rows.join(owners, owners.c.id == o.trace_id))
        .final(rows)
        .prewhere(is_latest(observations, rows, project_id))
        .group_by(owners.c.session_id)
        .subquery("spans")
    )


def _owners(project_id: str) -> Select[Any]:
    """Select the ids of traces with the ids of their sessions."""
    rows = traces.table.alias("t")
    return (
        select(rows.c.id, func.assumeNotNull(rows.c.session_id).label("session_id"))
        .final(rows)
        .prewhere(is_latest(traces, rows, project_id))
        .where(_in_session(rows.c.session_id))
    )


def _in_session(session_id: ColumnElement[str]) -> ColumnElement[bool]:
    return and_(session_id.is_not(None), session_id != bind_text(""))


def _distinct(values: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.arraySort(func.arrayRemove(values, bind_text("")))
