"""Declares the table `sessions`."""

from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, DateTime64
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import Boolean, Engine, Integer, Numeric, Select, String, column, func, or_, table
from sqlalchemy import select as select_in_database

from config.tables import trace_sessions
from pipeline.sql.clickhouse import bind_text
from pipeline.sql.events import to_plain_text
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sessions import member, select_sessions, select_with_member
from pipeline.sql.sources import View
from pipeline.sql.usage import COST_DIGITS
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import ExternalTable, Filterable, Join, MembersFilterable, Output, ScoresFilterable
from pipeline.tables.comments import comment_filterables
from pipeline.types import Kind

rows = table(
    "project_sessions",
    column("id", String()),
    column("user_ids", Array(ChString())),
    column("tags", Array(ChString())),
    column("traces", Integer()),
    column("created_at", DateTime64(3)),
    column("environment", String()),
    column("duration", Integer()),
    *(column(f"{each}_cost", Numeric()) for each in ("input", "output", "total")),
    *(column(f"{each}_tokens", Integer()) for each in ("input", "output", "total")),
)
s = rows.c

_external = table("marks", column("id", String()), column("bookmarked", Boolean()), column("public", Boolean()))


def _select_marks(_project_id: str, _cutoff: datetime) -> Select[Any]:
    marks = _external.c
    return select(
        marks.id.label("marked_key"), marks.bookmarked.label("is_bookmarked"), marks.public.label("is_public")
    )


def _select_marked(project_id: str, _database: Engine) -> Select[Any]:
    """Select the sessions that are bookmarked or public in Langfuse."""
    session = trace_sessions.c
    return select_in_database(session.id, session.bookmarked, session.public).where(
        session.project_id == project_id, or_(session.bookmarked, session.public)
    )


_marks_table = ExternalTable("marks", "id String, bookmarked Bool, public Bool", _select_marked)
marked = Join("marked", on=s.id, rows=_select_marks, external=_marks_table)
bookmarked, public = column("is_bookmarked", Boolean()), column("is_public", Boolean())
SCORE_LEVELS = (ScoreLevel(("session_id",), (s.id,), categories=("CATEGORICAL",)),)
SEPARATOR = "\x00"

_timestamp = Filterable("createdAt", (), "datetime", member.c.timestamp, day=func.toDate(member.c.timestamp))
_environment = Filterable("environment", (), "stringOptions", to_plain_text(member.c.environment))

SESSIONS = ClickHouseTable(
    name="sessions",
    source=View(select_sessions),
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, s.id),
        Output("userIds", Kind.LIST, s.user_ids),
        Output("countTraces", Kind.INTEGER, s.traces),
        Output("sessionDuration", Kind.INTEGER, s.duration),
        Output("inputCost", Kind.DECIMAL, s.input_cost),
        Output("outputCost", Kind.DECIMAL, s.output_cost),
        Output("totalCost", Kind.DECIMAL, s.total_cost),
        Output("totalTokens", Kind.INTEGER, s.total_tokens),
        Output("traceTags", Kind.LIST, s.tags),
        Output("createdAt", Kind.INSTANT, s.created_at),
        Output("bookmarked", Kind.BOOL, bookmarked, join=marked),
        Output("public", Kind.BOOL, public, join=marked),
        Output("totalCount", Kind.INTEGER, s.traces),
    ),
    filterables=(
        Filterable("bookmarked", ("⭐️",), "boolean", bookmarked, join=marked),
        Filterable("createdAt", ("Created At",), "datetime", s.created_at, member=_timestamp),
        Filterable("userIds", ("User IDs",), "arrayOptions", s.user_ids),
        Filterable("environment", ("Environment",), "stringOptions", s.environment, member=_environment),
        Filterable("sessionDuration", ("Session Duration", "Session Duration (s)"), "number", s.duration, places=0),
        Filterable("countTraces", ("Count Traces",), "number", s.traces, places=0),
        Filterable("inputCost", ("Input Cost ($)", "Session Input Cost"), "number", s.input_cost, places=COST_DIGITS),
        Filterable(
            "outputCost", ("Output Cost ($)", "Session Output Cost"), "number", s.output_cost, places=COST_DIGITS
        ),
        Filterable("totalCost", ("Session Total Cost", "Total Cost ($)"), "number", s.total_cost, places=COST_DIGITS),
        Filterable("inputTokens", ("Input Tokens",), "number", s.input_tokens, places=0),
        Filterable("outputTokens", ("Output Tokens",), "number", s.output_tokens, places=0),
        Filterable("totalTokens", ("Total Tokens", "Usage"), "number", s.total_tokens, places=0),
        Filterable("usage", ("Session Total Usage",), "number", s.total_tokens, places=0),
        Filterable("tracesCount", ("Traces Count",), "number", s.traces, places=0),
        Filterable("traceTags", ("Trace Tags",), "arrayOptions", s.tags),
        Filterable("id", ("ID",), "string", s.id),
        ScoresFilterable("scores_avg", ("Scores (numeric)",), "numberObject", SCORE_LEVELS),
        ScoresFilterable("score_categories", ("Scores (categorical)",), "categoryOptions", SCORE_LEVELS),
        ScoresFilterable("score_booleans", ("Scores (boolean)",), "booleanObject", SCORE_LEVELS),
        MembersFilterable("metadata", ("Metadata",), s.id, select_with_member),
        *comment_filterables("SESSION", s.id),
    ),
    # No text in a stored query contains the separator.
    searched={"id": (s.id, func.arrayStringConcat(s.user_ids, bind_text(SEPARATOR), type_=String()))},
    moment=s.created_at,
    order=(s.created_at, s.id),
    wide=(),
    comments_on="SESSION",
)
