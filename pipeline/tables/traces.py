"""Declares the table `traces`."""

from sqlalchemy import String, func

from pipeline.sql.clickhouse import get_map_value, to_json_object, to_string_object, to_utc
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import traces as source
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import Filterable, Output, ScoresFilterable
from pipeline.tables.comments import comment_filterables
from pipeline.tables.trace_totals import total_filterables
from pipeline.types import Kind

rows = source.table.alias("t")
t = rows.c
day = func.toDate(t.timestamp)
environment = func.toString(t.environment, type_=String())

SCORE_LEVELS = (ScoreLevel(("trace_id",), (t.id,)),)

TRACES = ClickHouseTable(
    name="traces",
    source=source,
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, t.id),
        Output("timestamp", Kind.INSTANT, to_utc(t.timestamp)),
        Output("name", Kind.TEXT, func.coalesce(t.name, "")),
        Output("userId", Kind.TEXT, t.user_id),
        Output("sessionId", Kind.TEXT, t.session_id),
        Output("release", Kind.TEXT, t.release),
        Output("version", Kind.TEXT, t.version),
        Output("environment", Kind.TEXT, environment),
        Output("tags", Kind.LIST, t.tags),
        Output("bookmarked", Kind.BOOL, t.bookmarked),
        Output("public", Kind.BOOL, t.public),
        Output("input", Kind.MAYBE_JSON, t.input),
        Output("output", Kind.MAYBE_JSON, t.output),
        Output("metadata", Kind.JSON, to_string_object(t.metadata), nested=to_json_object(t.metadata)),
    ),
    filterables=(
        Filterable("bookmarked", ("⭐️",), "boolean", t.bookmarked),
        Filterable("id", ("ID",), "string", t.id),
        Filterable("traceId", ("Trace ID",), "string", t.id),
        Filterable("name", ("Name",), "stringOptions", t.name),
        Filterable("traceName", ("Trace Name",), "stringOptions", t.name),
        Filterable("timestamp", ("Timestamp",), "datetime", t.timestamp, day=day),
        Filterable("userId", ("User ID",), "string", t.user_id),
        Filterable("sessionId", ("Session ID",), "string", t.session_id),
        Filterable("metadata", ("Metadata",), "stringObject", t.metadata),
        Filterable("evaluatorId", ("Evaluator ID",), "stringOptions", get_map_value(t.metadata, "evaluator_id")),
        Filterable(
            "ruleId",
            ("Rule ID",),
            "stringOptions",
            func.coalesce(
                get_map_value(t.metadata, "evaluation_rule_id"), get_map_value(t.metadata, "job_configuration_id")
            ),
        ),
        Filterable("version", ("Version",), "string", t.version),
        Filterable("release", ("Release",), "string", t.release),
        Filterable("environment", ("Environment",), "stringOptions", environment),
        Filterable("tags", ("Tags",), "arrayOptions", t.tags),
        Filterable("traceTags", ("Trace Tags",), "arrayOptions", t.tags),
        *total_filterables(t.id),
        ScoresFilterable("scores", ("Scores",), "scores", SCORE_LEVELS),
        ScoresFilterable("scores_avg", ("Scores (numeric)",), "numberObject", SCORE_LEVELS),
        ScoresFilterable("score_categories", ("Scores (categorical)",), "categoryOptions", SCORE_LEVELS),
        ScoresFilterable("score_booleans", ("Scores (boolean)",), "booleanObject", SCORE_LEVELS),
        *comment_filterables("TRACE", t.id),
    ),
    searched={
        "id": (t.id, t.user_id, t.name),
        "content": (t.input, t.output),
        "input": (t.input,),
        "output": (t.output,),
    },
    moment=t.timestamp,
    order=(day, t.id),
    wide=(t.input, t.output),
    comments_on="TRACE",
    scores=SCORE_LEVELS,
)
