"""Declares the variants of tables that are made of events: the same columns, with values from elsewhere."""

from dataclasses import replace
from functools import partial
from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import Boolean, ColumnElement, String, column, func, or_

from pipeline.request import OrderBy
from pipeline.sql import views
from pipeline.sql.clickhouse import bind_text, get_map_value
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
from pipeline.tables.events import EVENTS
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


_root = or_(func.empty(func.coalesce(o.parent_observation_id, "")), column("is_app_root", Boolean()))
_input, _output, _model = (
    func.coalesce(o[name], "", type_=String()) for name in ("input", "output", "provided_model_name")
)
_only_of_events: dict[str, ColumnElement[Any]] = {
    "ingestionApiKey": column("ingestion_api_key", String()),
    "ingestionSdkName": column("ingestion_sdk_name", String()),
    "ingestionSdkVersion": column("ingestion_sdk_version", String()),
    "ingestionSource": column("source", String()),
    "providedModelName": _model,
    "evaluatorId": get_map_value(o.metadata, "evaluator_id"),
    "ruleId": func.coalesce(
        get_map_value(o.metadata, "evaluation_rule_id"), get_map_value(o.metadata, "job_configuration_id")
    ),
    "release": column("release", String()),
    "input": _input,
    "output": _output,
    "tags": column("trace_tags", Array(ChString())),
    "hasParentObservation": o.parent_observation_id.is_not(None),
    "isRootObservation": _root,
    "hasInput": func.notEmpty(_input),
    "hasOutput": func.notEmpty(_output),
    "experimentDatasetId": column("experiment_dataset_id", String()),
    "experimentId": column("experiment_id", String()),
    "experimentName": column("experiment_name", String()),
    "isExperimentItemRootSpan": column("is_experiment_root", Boolean()),
}


def _of_observation(filterable: AnyFilterable) -> AnyFilterable:
    """Return the column for an event, whose texts are never null, and which has the columns of its trace itself."""
    match filterable:
        case Filterable(id="startTime"):
            return replace(filterable, day=column("minute"))
        case Filterable(type="string" | "stringOptions") if filterable.id != "traceName":
            text = func.coalesce(filterable.value, bind_text(""), type_=String())
            return replace(filterable, value=text, empty_is_null=True, join=None)
        case Filterable():
            join = None if filterable.join is TRACE else filterable.join
            return replace(filterable, join=join, full_text=filterable.id == "metadata")
        case ScoresFilterable():
            return replace(filterable, levels=_both_levels)
        case PositionFilterable():
            return replace(filterable, is_root=_root, select_at=partial(select_at_position, events))
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


def _of_events(filterable: AnyFilterable) -> AnyFilterable:
    """Return the column of an event that an observation has not, as the view of observations has it."""
    match filterable:
        case ScoresFilterable():
            return replace(filterable, levels=(_trace_level,))
        case Filterable():
            return replace(filterable, value=_only_of_events[filterable.id])
        case _:
            raise NotImplementedError(filterable.id)


_own = tuple(_of_observation(each) for each in OBSERVATIONS.filterables)
_more = tuple(_of_events(each) for each in EVENTS.filterables if each.id not in {own.id for own in _own})

OBSERVATIONS_FROM_EVENTS = replace(
    OBSERVATIONS,
    reads_events=True,
    source=View(views.select_observations, views.select_survey),
    outputs=tuple(replace(each, join=None) for each in OBSERVATIONS.outputs),
    filterables=(*_own, *_more),
    searched={**OBSERVATIONS.searched, "id": (o.id, o.name, *_trace_columns, o.trace_id)},
    default_order=OrderBy(column="startTime", order="DESC"),
    order=(o.id,),
    scores=_both_levels,
)

SCORES_FROM_EVENTS = replace(
    SCORES,
    reads_events=True,
    outputs=tuple(
        replace(each, join=_trace_of_score) if each.join is TRACE_OF_SCORE else each for each in SCORES.outputs
    ),
    filterables=tuple(_of_score(each) for each in SCORES.filterables),
)

SESSIONS_FROM_EVENTS = replace(
    SESSIONS,
    reads_events=True,
    source=View(views.select_sessions),
    filterables=tuple(_of_session(each) for each in SESSIONS.filterables),
)

TRACES_FROM_EVENTS = replace(
    TRACES,
    source=View(views.select_traces, views.select_survey),
    filterables=tuple(_totals.get(each.id, each) for each in TRACES.filterables),
    order=(column("carrier_minute"), column("carrier_hash"), t.id),
)
