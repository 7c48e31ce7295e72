"""Declares the variants of tables that are made of events: the same columns, with values from elsewhere."""

from dataclasses import replace
from functools import partial

from sqlalchemy import Boolean, String, column, func, or_

from pipeline.request import OrderBy
from pipeline.sql import views
from pipeline.sql.clickhouse import bind_text
from pipeline.sql.events import events
from pipeline.sql.position import select_at_position
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import View
from pipeline.tables.columns import (
    AnyFilterable,
    Filterable,
    Join,
    MembersFilterable,
    PositionFilterable,
    ScoresFilterable,
)
from pipeline.tables.observations import OBSERVATIONS, SCORE_LEVELS, TRACE, o
from pipeline.tables.scores import SCORES, TRACE_OF_SCORE
from pipeline.tables.sessions import SESSIONS
from pipeline.tables.trace_totals import total_filterables
from pipeline.tables.traces import TRACES, t

_trace_level = ScoreLevel(
    ("trace_id",), (o.trace_id,), distinct_by=("id",), only=lambda score: score.observation_id.is_(None)
)
_both_levels = (*SCORE_LEVELS, _trace_level)
_trace_columns = tuple(column(f"trace_{name}", String()) for name in ("name", "user", "session"))
_trace_of_score = Join(TRACE_OF_SCORE.name, TRACE_OF_SCORE.on, views.select_traces_of_scores)
_totals = {each.id: each for each in total_filterables(t.id, events)}


def _of_observation(filterable: AnyFilterable) -> AnyFilterable:
    """Return the column for an event, whose texts are never null, and which has the columns of its trace itself."""
    match filterable:
        case Filterable(id="startTime"):
            return replace(filterable, day=column("minute"))
        case Filterable(type="string" | "stringOptions") if filterable.id != "traceName":
            text = func.coalesce(filterable.value, bind_text(""), type_=String())
            return replace(filterable, value=text, empty_is_null=True, join=None)
        case Filterable():
            return replace(filterable, join=None) if filterable.join is TRACE else filterable
        case ScoresFilterable():
            return replace(filterable, levels=_both_levels)
        case PositionFilterable():
            is_root = or_(filterable.is_root, column("is_app_root", Boolean()))
            return replace(filterable, is_root=is_root, select_at=partial(select_at_position, events))
        case _:
            return filterable


def _of_score(filterable: AnyFilterable) -> AnyFilterable:
    if isinstance(filterable, Filterable) and filterable.join is TRACE_OF_SCORE:
        return replace(filterable, join=_trace_of_score)
    return filterable


def _of_session(filterable: AnyFilterable) -> AnyFilterable:
    """Return the column for a session of events, which filters select as a whole."""
    if isinstance(filterable, MembersFilterable):
        return replace(filterable, select_with_member=views.select_with_member)
    return replace(filterable, member=None) if isinstance(filterable, Filterable) else filterable


OBSERVATIONS_FROM_EVENTS = replace(
    OBSERVATIONS,
    source=View(views.select_observations, views.select_survey),
    outputs=tuple(replace(each, join=None) for each in OBSERVATIONS.outputs),
    filterables=tuple(_of_observation(each) for each in OBSERVATIONS.filterables),
    searched={**OBSERVATIONS.searched, "id": (o.id, o.name, *_trace_columns, o.trace_id)},
    default_order=OrderBy(column="startTime", order="DESC"),
    order=(o.id,),
    scores=_both_levels,
)

SCORES_FROM_EVENTS = replace(
    SCORES,
    outputs=tuple(
        replace(each, join=_trace_of_score) if each.join is TRACE_OF_SCORE else each for each in SCORES.outputs
    ),
    filterables=tuple(_of_score(each) for each in SCORES.filterables),
)

SESSIONS_FROM_EVENTS = replace(
    SESSIONS,
    source=View(views.select_sessions),
    filterables=tuple(_of_session(each) for each in SESSIONS.filterables),
)

TRACES_FROM_EVENTS = replace(
    TRACES,
    source=View(views.select_traces, views.select_survey),
    filterables=tuple(_totals.get(each.id, each) for each in TRACES.filterables),
    order=(column("carrier_minute"), column("carrier_hash"), t.id),
)
