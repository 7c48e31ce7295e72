"""Declares the table `observations`."""

from datetime import datetime
from functools import partial
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, DateTime64, UInt64
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import Select, String, column, func

from pipeline.enrich.prices import MODEL_ID, Prices
from pipeline.sql.clickhouse import bind_text, to_json_object, to_string_object, to_utc
from pipeline.sql.events import to_plain_text
from pipeline.sql.position import select_at_position
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.sources import is_latest, traces
from pipeline.sql.sources import observations as source
from pipeline.sql.usage import (
    COST_DIGITS,
    MILLISECONDS_DIGITS,
    get_total,
    get_total_or_null,
    per_second,
    seconds_between,
    sum_containing,
    sum_containing_or_null,
    to_cost,
)
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import Filterable, Join, Output, PositionFilterable, ScoresFilterable
from pipeline.tables.comments import comment_filterables
from pipeline.types import Kind

rows = source.table.alias("o")
o = rows.c
day = func.toDate(o.start_time)

SCORE_LEVELS = (ScoreLevel(("trace_id", "observation_id"), (o.trace_id, o.id), distinct_by=("comment",)),)


def _select_traces(project_id: str, cutoff: datetime) -> Select[Any]:  # noqa: ARG001 (as of now, like everything that is joined)
    trace = traces.table.alias("t")
    t = trace.c
    return (
        select(
            t.id.label("trace_key"),
            func.toNullable(t.name).label("trace_name"),
            t.user_id.label("trace_user"),
            t.session_id.label("trace_session"),
            func.toNullable(to_plain_text(t.environment)).label("trace_environment"),
            t.tags.label("trace_tags"),
            func.toNullable(t.timestamp).label("trace_timestamp"),
        )
        .final(trace)
        .prewhere(is_latest(traces, trace, project_id))
    )


TRACE = Join("trace", o.trace_id, _select_traces)
trace_name, trace_user = column("trace_name", String()), column("trace_user", String())
trace_tags = column("trace_tags", Array(ChString()))
took = seconds_between(o.start_time, o.end_time)
waited = seconds_between(o.start_time, o.completion_start_time)
generated = sum_containing(o.usage_details, "output")

OBSERVATIONS = ClickHouseTable(
    name="observations",
    source=source,
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, o.id),
        Output("traceId", Kind.TEXT, o.trace_id),
        Output("startTime", Kind.INSTANT, to_utc(o.start_time)),
        Output("endTime", Kind.INSTANT, to_utc(o.end_time)),
        Output("projectId", Kind.TEXT, o.project_id),
        Output("parentObservationId", Kind.TEXT, o.parent_observation_id),
        Output("type", Kind.TEXT, to_plain_text(o.type)),
        Output("environment", Kind.TEXT, to_plain_text(o.environment)),
        Output("name", Kind.TEXT, o.name),
        Output("level", Kind.TEXT, to_plain_text(o.level)),
        Output("statusMessage", Kind.TEXT, o.status_message),
        Output("version", Kind.TEXT, o.version),
        Output("createdAt", Kind.INSTANT, to_utc(o.created_at)),
        Output("updatedAt", Kind.INSTANT, to_utc(o.updated_at)),
        Output("input", Kind.MAYBE_JSON, o.input),
        Output("output", Kind.MAYBE_JSON, o.output),
        Output("metadata", Kind.JSON, to_json_object(o.metadata)),
        Output("model", Kind.TEXT, o.provided_model_name),
        Output(MODEL_ID, Kind.TEXT, o.internal_model_id),
        Output("modelParameters", Kind.MAYBE_JSON, o.model_parameters),
        Output("completionStartTime", Kind.INSTANT, to_utc(o.completion_start_time)),
        Output("promptId", Kind.TEXT, o.prompt_id),
        Output("promptName", Kind.TEXT, o.prompt_name),
        Output("promptVersion", Kind.INTEGER, o.prompt_version),
        Output("latency", Kind.DECIMAL, took),
        Output("timeToFirstToken", Kind.DECIMAL, waited),
        Output("providedUsageDetails", Kind.JSON, func.toJSONString(o.provided_usage_details)),
        Output("usageDetails", Kind.JSON, func.toJSONString(o.usage_details)),
        Output("costDetails", Kind.JSON, func.toJSONString(o.cost_details)),
        Output("providedCostDetails", Kind.JSON, func.toJSONString(o.provided_cost_details)),
        Output("inputCost", Kind.DECIMAL, to_cost(sum_containing_or_null(o.cost_details, "input"))),
        Output("outputCost", Kind.DECIMAL, to_cost(sum_containing_or_null(o.cost_details, "output"))),
        Output("totalCost", Kind.DECIMAL, to_cost(get_total(o.cost_details))),
        Output("inputUsage", Kind.INTEGER, sum_containing(o.usage_details, "input")),
        Output("outputUsage", Kind.INTEGER, sum_containing(o.usage_details, "output")),
        Output("totalUsage", Kind.INTEGER, get_total(o.usage_details)),
        Output("usagePricingTierId", Kind.TEXT, o.usage_pricing_tier_id),
        Output("usagePricingTierName", Kind.TEXT, o.usage_pricing_tier_name),
        Output("toolDefinitions", Kind.JSON, to_string_object(o.tool_definitions)),
        Output("toolCalls", Kind.LIST, o.tool_calls),
        Output("toolCallNames", Kind.LIST, o.tool_call_names),
        Output("traceName", Kind.TEXT, trace_name, join=TRACE),
        Output("traceTags", Kind.LIST, trace_tags, join=TRACE),
        Output("traceTimestamp", Kind.INSTANT, to_utc(column("trace_timestamp", DateTime64(3))), join=TRACE),
        Output("userId", Kind.TEXT, trace_user, join=TRACE),
        Output("toolDefinitionsCount", Kind.INTEGER, func.length(o.tool_definitions, type_=UInt64())),
        Output("toolCallsCount", Kind.INTEGER, func.length(o.tool_calls, type_=UInt64())),
        Output("modelId", Kind.TEXT, None, made_of=MODEL_ID),
        Output("inputPrice", Kind.DECIMAL, None, made_of=MODEL_ID),
        Output("outputPrice", Kind.DECIMAL, None, made_of=MODEL_ID),
        Output("totalPrice", Kind.DECIMAL, None, made_of=MODEL_ID),
    ),
    filterables=(
        Filterable("traceTags", ("Trace Tags",), "arrayOptions", trace_tags, join=TRACE),
        Filterable("userId", ("User ID",), "string", trace_user, join=TRACE),
        Filterable("sessionId", ("Session ID",), "string", column("trace_session", String()), join=TRACE),
        Filterable("traceName", ("Trace Name",), "stringOptions", trace_name, join=TRACE),
        Filterable(
            "traceEnvironment",
            ("Trace Environment",),
            "stringOptions",
            column("trace_environment", String()),
            join=TRACE,
        ),
        Filterable("environment", ("Environment",), "stringOptions", to_plain_text(o.environment)),
        Filterable("type", ("Type", "type"), "stringOptions", to_plain_text(o.type)),
        Filterable("id", ("ID",), "stringOptions", o.id),
        Filterable("name", ("Name",), "stringOptions", o.name),
        Filterable("traceId", ("Trace ID",), "string", o.trace_id),
        Filterable("parentObservationId", ("Parent Observation ID",), "string", o.parent_observation_id),
        Filterable("startTime", ("Start Time",), "datetime", o.start_time, day=day),
        Filterable("endTime", ("End Time",), "datetime", o.end_time),
        Filterable("timeToFirstToken", ("Time To First Token (s)",), "number", waited, places=MILLISECONDS_DIGITS),
        Filterable("latency", ("Latency (s)",), "number", took, places=MILLISECONDS_DIGITS),
        Filterable(
            "tokensPerSecond", ("Tokens per second",), "number", per_second(generated, o.start_time, o.end_time)
        ),
        Filterable(
            "inputCost",
            ("Input Cost ($)",),
            "number",
            to_cost(sum_containing(o.cost_details, "input")),
            places=COST_DIGITS,
        ),
        Filterable(
            "outputCost",
            ("Output Cost ($)",),
            "number",
            to_cost(sum_containing(o.cost_details, "output")),
            places=COST_DIGITS,
        ),
        Filterable("totalCost", ("Total Cost ($)",), "number", get_total_or_null(o.cost_details), places=COST_DIGITS),
        Filterable("level", ("Level",), "stringOptions", to_plain_text(o.level)),
        Filterable("statusMessage", ("Status Message",), "string", o.status_message),
        Filterable("model", ("Model",), "stringOptions", o.provided_model_name),
        Filterable("modelId", ("Model ID",), "stringOptions", o.internal_model_id),
        Filterable("inputTokens", ("Input Tokens",), "number", sum_containing(o.usage_details, "input"), places=0),
        Filterable("outputTokens", ("Output Tokens",), "number", generated, places=0),
        Filterable("totalTokens", ("Total Tokens",), "number", get_total_or_null(o.usage_details), places=0),
        Filterable("tokens", ("Tokens",), "number", get_total_or_null(o.usage_details), places=0),
        Filterable("metadata", ("Metadata",), "stringObject", o.metadata),
        ScoresFilterable("scores", ("Scores",), "scores", SCORE_LEVELS),
        ScoresFilterable("scores_avg", ("Scores (numeric)",), "numberObject", SCORE_LEVELS),
        ScoresFilterable("score_categories", ("Scores (categorical)",), "categoryOptions", SCORE_LEVELS),
        ScoresFilterable("score_booleans", ("Scores (boolean)",), "booleanObject", SCORE_LEVELS),
        Filterable("version", ("Version",), "string", o.version),
        Filterable("promptName", ("Prompt Name",), "stringOptions", o.prompt_name),
        Filterable("promptVersion", ("Prompt Version",), "number", o.prompt_version, places=0),
        Filterable("toolDefinitions", ("Available Tools",), "number", func.length(o.tool_definitions), places=0),
        Filterable("toolCalls", ("Tool Calls",), "number", func.length(o.tool_calls), places=0),
        Filterable("toolNames", ("Tool Names",), "arrayOptions", func.mapKeys(o.tool_definitions)),
        Filterable("calledToolNames", ("Called Tool Names",), "arrayOptions", o.tool_call_names),
        *comment_filterables("OBSERVATION", o.id),
        PositionFilterable(
            "positionInTrace",
            ("Position in Trace",),
            o.id,
            func.empty(func.coalesce(o.parent_observation_id, bind_text(""))),
            partial(select_at_position, source),
        ),
    ),
    searched={
        "id": (o.id, trace_user, o.name),
        "content": (o.input, o.output),
        "input": (o.input,),
        "output": (o.output,),
    },
    moment=o.start_time,
    order=(o.type, day, o.id),
    wide=(o.input, o.output),
    enrichers=(Prices,),
    comments_on="OBSERVATION",
    scores=SCORE_LEVELS,
)
