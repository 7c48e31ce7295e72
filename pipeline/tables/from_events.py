"""Declares tables that are made of events instead of rows of their own: the same columns from elsewhere."""

from dataclasses import replace
from functools import partial

from sqlalchemy import Boolean, String, column, or_

from pipeline.request import OrderBy
from pipeline.sql import views as derived
from pipeline.sql.events import events, null_if_empty
from pipeline.sql.position import select_at_position
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import View
from pipeline.tables import trace_totals as observed
from pipeline.tables.clickhouse_table import Askable, Filterable, OfMembers, OfPlace, OfScores, Related
from pipeline.tables.observations import OBSERVATIONS, SCORED, TRACE, o
from pipeline.tables.scores import SCORES, traced
from pipeline.tables.sessions import SESSIONS
from pipeline.tables.traces import TRACES, t

_trace_level = ScoreLevel(
    ("trace_id",), (o.trace_id,), apart=("comment",), only=lambda score: score.observation_id.is_(None)
)
_both_levels = (*SCORED, _trace_level)
_of_trace = tuple(column(f"trace_{name}", String()) for name in ("name", "user", "session"))
_summarised = Related(traced.name, traced.on, derived.select_traces_of_scores)
_observed = {asked.id: asked for asked in observed.filterables(t.id, events)}


def _of_observation(asked: Askable) -> Askable:
    """Ask an observation that is an event: empty text is missing, and what is of its trace is its own."""
    match asked:
        case Filterable(id="startTime"):
            return replace(asked, day=column("minute"))
        case Filterable(type="string" | "stringOptions"):
            return replace(asked, value=null_if_empty(asked.value), of=None)
        case Filterable():
            return replace(asked, of=None) if asked.of is TRACE else asked
        case OfScores():
            return replace(asked, scored=_both_levels)
        case OfPlace():
            return replace(
                asked, root=or_(asked.root, column("is_app_root", Boolean())), at=partial(select_at_position, events)
            )
        case _:
            return asked


def _of_score(asked: Askable) -> Askable:
    return replace(asked, of=_summarised) if isinstance(asked, Filterable) and asked.of is traced else asked


def _of_session(asked: Askable) -> Askable:
    return replace(asked, with_member=derived.select_with_member) if isinstance(asked, OfMembers) else asked


OBSERVATIONS_FROM_EVENTS = replace(
    OBSERVATIONS,
    source=View(derived.select_observations, derived.select_survey),
    outputs=tuple(replace(each, of=None) for each in OBSERVATIONS.outputs),
    filterables=tuple(_of_observation(each) for each in OBSERVATIONS.filterables),
    searched={**OBSERVATIONS.searched, "id": (o.id, o.name, *_of_trace, o.trace_id)},
    natural=OrderBy(column="startTime", order="DESC"),
    order=(o.id,),
    scores=_both_levels,
)

SCORES_FROM_EVENTS = replace(
    SCORES,
    outputs=tuple(replace(each, of=_summarised) if each.of is traced else each for each in SCORES.outputs),
    filterables=tuple(_of_score(each) for each in SCORES.filterables),
)

SESSIONS_FROM_EVENTS = replace(
    SESSIONS,
    source=View(derived.select_sessions),
    filterables=tuple(_of_session(each) for each in SESSIONS.filterables),
)

TRACES_FROM_EVENTS = replace(
    TRACES,
    source=View(derived.select_traces, derived.select_survey),
    filterables=tuple(_observed.get(each.id, each) for each in TRACES.filterables),
    order=(column("carrier_minute"), column("carrier_hash"), t.id),
)
