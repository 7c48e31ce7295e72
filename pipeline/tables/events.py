"""Declares the table `events`."""

from functools import partial

from sqlalchemy import func

from pipeline.request import OrderBy
from pipeline.sql.clickhouse import json_object, map_value, string_object, text, utc
from pipeline.sql.events import events as source
from pipeline.sql.events import given, is_experiment_root, is_root, metadata, plain, trace_name
from pipeline.sql.position import at
from pipeline.sql.scores import Scored
from pipeline.sql.usage import (
    COST_DIGITS,
    MILLISECONDS_DIGITS,
    containing,
    cost,
    milliseconds,
    per_second,
    seconds,
    total,
    total_or_null,
)
from pipeline.tables.clickhouse_table import Declaration, Filterable, OfPlace, OfScores, Output
from pipeline.tables.comments import filterables as commented
from pipeline.types import Kind

rows = source.table.alias("e")
e = rows.c
minute = func.toStartOfMinute(e.start_time)
details = metadata(e)
used = containing(e.usage_details, "output")

SCORED_TRACES = (Scored(("trace_id",), (e.trace_id,), ("comment",), only=lambda score: score.observation_id.is_(None)),)
SCORED = (Scored(("trace_id", "observation_id"), (e.trace_id, e.span_id), ("comment",)), *SCORED_TRACES)

EVENTS = Declaration(
    name="events",
    source=source,
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, e.span_id),
        Output("traceId", Kind.TEXT, e.trace_id),
        Output("traceName", Kind.TEXT, trace_name(e)),
        Output("type", Kind.TEXT, plain(e.type)),
        Output("name", Kind.TEXT, e.name),
        Output("startTime", Kind.INSTANT, utc(e.start_time)),
        Output("endTime", Kind.INSTANT, utc(e.end_time)),
        Output("completionStartTime", Kind.INSTANT, utc(e.completion_start_time)),
        Output("environment", Kind.TEXT, plain(e.environment)),
        Output("version", Kind.TEXT, e.version),
        Output("userId", Kind.TEXT, e.user_id),
        Output("sessionId", Kind.TEXT, e.session_id),
        Output("level", Kind.TEXT, plain(e.level)),
        Output("statusMessage", Kind.TEXT, e.status_message),
        Output("promptName", Kind.TEXT, e.prompt_name),
        Output("promptId", Kind.TEXT, e.prompt_id),
        Output("promptVersion", Kind.INTEGER, e.prompt_version),
        Output("modelId", Kind.TEXT, e.model_id),
        Output("providedModelName", Kind.TEXT, e.provided_model_name),
        Output("modelParameters", Kind.MAYBE_JSON, e.model_parameters),
        Output("usageDetails", Kind.JSON, func.toJSONString(e.usage_details)),
        Output("costDetails", Kind.JSON, func.toJSONString(e.cost_details)),
        Output("totalCost", Kind.DECIMAL, cost(total(e.cost_details))),
        Output("input", Kind.MAYBE_JSON, e.input),
        Output("output", Kind.MAYBE_JSON, e.output),
        Output("metadata", Kind.JSON, string_object(details), nested=json_object(details)),
        Output("latencyMs", Kind.INTEGER, milliseconds(e.start_time, e.end_time)),
        Output("timeToFirstTokenMs", Kind.INTEGER, milliseconds(e.start_time, e.completion_start_time)),
        Output("tags", Kind.LIST, e.tags),
        Output("release", Kind.TEXT, e.release),
        Output("parentObservationId", Kind.TEXT, e.parent_span_id),
    ),
    filterables=(
        Filterable("environment", ("Environment",), "stringOptions", given(e.environment)),
        Filterable("ingestionApiKey", ("API Key",), "stringOptions", given(e.ingestion_api_key)),
        Filterable("ingestionSdkName", ("SDK Name",), "stringOptions", given(e.ingestion_sdk_name)),
        Filterable("ingestionSdkVersion", ("SDK Version",), "stringOptions", given(e.ingestion_sdk_version)),
        Filterable("ingestionSource", ("Ingestion Source",), "stringOptions", given(e.source)),
        Filterable("type", ("Type",), "stringOptions", given(e.type)),
        Filterable("id", ("ID",), "stringOptions", given(e.span_id)),
        Filterable("name", ("Name",), "stringOptions", given(e.name)),
        Filterable("traceId", ("Trace ID",), "string", given(e.trace_id)),
        Filterable("startTime", ("Start Time",), "datetime", e.start_time, day=minute),
        Filterable("endTime", ("End Time",), "datetime", e.end_time),
        Filterable(
            "timeToFirstToken",
            ("Time To First Token (s)",),
            "number",
            seconds(e.start_time, e.completion_start_time),
            places=MILLISECONDS_DIGITS,
        ),
        Filterable(
            "latency", ("Latency (s)",), "number", seconds(e.start_time, e.end_time), places=MILLISECONDS_DIGITS
        ),
        Filterable("tokensPerSecond", ("Tokens per second",), "number", per_second(used, e.start_time, e.end_time)),
        Filterable("inputCost", ("Input Cost ($)",), "number", containing(e.cost_details, "input"), places=COST_DIGITS),
        Filterable(
            "outputCost", ("Output Cost ($)",), "number", containing(e.cost_details, "output"), places=COST_DIGITS
        ),
        Filterable("totalCost", ("Total Cost ($)",), "number", total_or_null(e.cost_details), places=COST_DIGITS),
        Filterable("level", ("Level",), "stringOptions", given(e.level)),
        Filterable("statusMessage", ("Status Message",), "string", given(e.status_message)),
        Filterable("model", ("Model",), "stringOptions", given(e.provided_model_name)),
        Filterable("providedModelName", ("Provided Model Name",), "stringOptions", given(e.provided_model_name)),
        Filterable("modelId", ("Model ID",), "stringOptions", given(e.model_id)),
        Filterable("inputTokens", ("Input Tokens",), "number", containing(e.usage_details, "input"), places=0),
        Filterable("outputTokens", ("Output Tokens",), "number", used, places=0),
        Filterable("totalTokens", ("Total Tokens",), "number", total_or_null(e.usage_details), places=0),
        Filterable("tokens", ("Tokens",), "number", total_or_null(e.usage_details), places=0),
        Filterable("metadata", ("Metadata",), "stringObject", details, full_text=True),
        Filterable("evaluatorId", ("Evaluator ID",), "stringOptions", map_value(details, "evaluator_id")),
        Filterable(
            "ruleId",
            ("Rule ID",),
            "stringOptions",
            func.coalesce(map_value(details, "evaluation_rule_id"), map_value(details, "job_configuration_id")),
        ),
        Filterable("version", ("Version",), "string", given(e.version)),
        Filterable("release", ("Release",), "string", given(e.release)),
        Filterable("promptName", ("Prompt Name",), "stringOptions", given(e.prompt_name)),
        Filterable("promptVersion", ("Prompt Version",), "number", e.prompt_version, places=0),
        Filterable("input", ("Input",), "string", given(e.input), full_text=True),
        Filterable("output", ("Output",), "string", given(e.output), full_text=True),
        Filterable("sessionId", ("Session ID",), "string", given(e.session_id)),
        Filterable("traceName", ("Trace Name",), "stringOptions", trace_name(e)),
        Filterable("userId", ("User ID",), "string", given(e.user_id)),
        Filterable("traceTags", ("Trace Tags",), "arrayOptions", e.tags),
        Filterable("tags", ("Tags",), "arrayOptions", e.tags),
        Filterable("traceEnvironment", ("Trace Environment",), "stringOptions", given(e.environment)),
        Filterable("hasParentObservation", ("Has Parent Observation",), "boolean", e.parent_span_id != text("")),
        Filterable("isRootObservation", ("Is Root Observation",), "boolean", is_root(e)),
        Filterable("hasInput", ("Has Input",), "boolean", e.input != text("")),
        Filterable("hasOutput", ("Has Output",), "boolean", e.output != text("")),
        Filterable("parentObservationId", ("Parent Observation ID",), "string", given(e.parent_span_id)),
        Filterable("experimentDatasetId", ("Experiment Dataset ID",), "stringOptions", given(e.experiment_dataset_id)),
        Filterable("experimentId", ("Experiment ID",), "stringOptions", given(e.experiment_id)),
        Filterable("experimentName", ("Experiment Name",), "stringOptions", given(e.experiment_name)),
        Filterable("isExperimentItemRootSpan", ("Is Experiment Item Root Span",), "boolean", is_experiment_root(e)),
        Filterable("toolDefinitions", ("Available Tools",), "number", func.length(e.tool_definitions), places=0),
        Filterable("toolCalls", ("Tool Calls",), "number", func.length(e.tool_calls), places=0),
        Filterable("toolNames", ("Tool Names",), "arrayOptions", func.mapKeys(e.tool_definitions)),
        Filterable("calledToolNames", ("Called Tool Names",), "arrayOptions", e.tool_call_names),
        OfScores("scores", ("Scores",), "scores", SCORED),
        OfScores("scores_avg", ("Scores (numeric)",), "numberObject", SCORED),
        OfScores("score_categories", ("Scores (categorical)",), "categoryOptions", SCORED),
        OfScores("score_booleans", ("Scores (boolean)",), "booleanObject", SCORED),
        OfScores("trace_scores_avg", ("Trace Scores (numeric)",), "numberObject", SCORED_TRACES),
        OfScores("trace_score_categories", ("Trace Scores (categorical)",), "categoryOptions", SCORED_TRACES),
        OfScores("trace_score_booleans", ("Trace Scores (boolean)",), "booleanObject", SCORED_TRACES),
        *commented("OBSERVATION", e.span_id),
        OfPlace("positionInTrace", ("Position in Trace",), e.span_id, is_root(e), partial(at, source)),
    ),
    searched={
        "id": (e.span_id, e.name, trace_name(e), e.user_id, e.session_id, e.trace_id),
        "content": (e.input, e.output),
        "input": (e.input,),
        "output": (e.output,),
    },
    moment=e.start_time,
    natural=OrderBy(column="startTime", order="DESC"),
    order=(e.span_id,),
    wide=(e.input, e.output),
    comments_on="OBSERVATION",
    scores=SCORED,
)
