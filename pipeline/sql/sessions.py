"""Compiles sessions: the traces of a project with the same session id, and the totals of their observations."""

from collections.abc import Callable
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, Select, Subquery, func

from pipeline.sql.clickhouse import bind_text, to_utc
from pipeline.sql.sources import is_latest, observations, traces
from pipeline.sql.usage import get_total, seconds_crossed, sum_containing_ignoring_case, to_cost

member = traces.table.alias("m")
"""A trace of a session; conditions on the traces that sessions are made of refer to it."""


def select_sessions(project_id: str, members: ColumnElement[bool]) -> Select[Any]:
    """Select a project's sessions as they are now, by the latest versions of their traces and observations.

    Sessions are made of the traces that meet the condition on `member`; others, and their observations, don't count.
    """
    summaries, spans = _summaries(project_id, members), _spans(project_id, members)
    return select(*summaries.c, *(each for each in spans.c if each is not spans.c.owner)).select_from(
        summaries.outerjoin(spans, spans.c.owner == summaries.c.id)
    )


def select_with_member(
    project_id: str, members: ColumnElement[bool], met: Callable[[ColumnElement[Any]], ColumnElement[bool]]
) -> Select[Any]:
    """Select the ids of sessions that have a trace whose metadata meets a condition."""
    return _select_members(project_id, members, member.c.session_id).where(met(member.c.metadata))


def _summaries(project_id: str, members: ColumnElement[bool]) -> Subquery:
    m = member.c
    newest = func.tuple(m.timestamp, m.id)
    return (
        _select_members(
            project_id,
            members,
            func.assumeNotNull(m.session_id).label("id"),
            _distinct(func.groupUniqArray(m.user_id)).label("user_ids"),
            _distinct(func.groupUniqArrayArray(m.tags)).label("tags"),
            func.count().label("traces"),
            to_utc(func.min(m.timestamp)).label("created_at"),
            func.nullIf(func.toString(func.argMax(m.environment, newest)), bind_text("")).label("environment"),
        )
        .group_by(m.session_id)
        .subquery("members")
    )


def _spans(project_id: str, members: ColumnElement[bool]) -> Subquery:
    m = member.c
    session_id = func.assumeNotNull(m.session_id).label("session_id")
    owners = _select_members(project_id, members, m.id, session_id).subquery("owners")
    rows = observations.table.alias("o")
    o = rows.c
    first, last = func.min(o.start_time), func.max(func.coalesce(o.end_time, o.start_time))
    return (
        select(
            owners.c.session_id.label("owner"),
            func.toNullable(seconds_crossed(first, last)).label("duration"),
            to_cost(func.sum(sum_containing_ignoring_case(o.cost_details, "input"))).label("input_cost"),
            to_cost(func.sum(sum_containing_ignoring_case(o.cost_details, "output"))).label("output_cost"),
            to_cost(func.sum(get_total(o.cost_details))).label("total_cost"),
            func.sum(sum_containing_ignoring_case(o.usage_details, "input")).label("input_tokens"),
            func.sum(sum_containing_ignoring_case(o.usage_details, "output")).label("output_tokens"),
            func.sum(get_total(o.usage_details)).label("total_tokens"),
        )
        .select_from(rows.join(owners, owners.c.id == o.trace_id))
        .final(rows)
        .prewhere(is_latest(observations, rows, project_id))
        .group_by(owners.c.session_id)
        .subquery("spans")
    )


def _select_members(project_id: str, members: ColumnElement[bool], *values: ColumnElement[Any]) -> Select[Any]:
    """Select values of the traces that sessions are made of."""
    session_id = member.c.session_id
    statement: Select[Any] = (
        select(*values)
        .final(member)
        .prewhere(is_latest(traces, member, project_id))
        .where(session_id.is_not(None), session_id != bind_text(""), members)
    )
    return statement


def _distinct(values: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.arraySort(func.arrayRemove(values, bind_text("")))
