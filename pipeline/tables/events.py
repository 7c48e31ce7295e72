"""Declares the table `events`."""

from functools import partial

from sqlalchemy import func

from pipeline.request import OrderBy
from pipeline.sql.clickhouse import bind_text, get_map_value, to_json_object, to_string_object, to_utc
from pipeline.sql.events import events as source
from pipeline.sql.events import get_metadata, get_trace_name, is_experiment_root, is_root, to_plain_text
from pipeline.sql.position import select_at_position
from pipeline.sql.scores import ScoreLevel
from pipeline.sql.usage import (
    COST_DIGITS,
    MILLISECONDS_DIGITS,
    get_total,
    get_total_or_null,
    milliseconds_between,
    per_second,
    seconds_between,
    sum_containing,
    to_cost,
)
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import Filterable, Output, PositionFilterable, ScoresFilterable
from pipeline.tables.comments import comment_filterables
from pipeline.types import Kind

rows = source.table.alias("e")
e = rows.c
minute = func.toStartOfMinute(e.start_time)
details = get_metadata(e)
used = sum_containing(e.usage_details, "output")

TRACE_SCORE_LEVEL = (
    ScoreLevel(("trace_id",), (e.trace_id,), ("id",), only=lambda score: score.observation_id.is_(None)),
)
SCORE_LEVELS = (ScoreLevel(("trace_id", "observation_id"), (e.trace_id, e.span_id), ("comment",)), *TRACE_SCORE_LEVEL)

EVENTS = ClickHouseTable(
    name="events",
    source=source,
    reads_events=True,
    rows=rows,
    outputs=(
        Output("id", Kind.TEXT, e.span_id),
        Output("traceId", Kind.TEXT, e.trace_id),
        Output("traceName", Kind.TEXT, get_trace_name(e)),
        Output("type", Kind.TEXT, to_plain_text(e.type)),
        Output("name", Kind.TEXT, e.name),
        Output("startTime", Kind.INSTANT, to_utc(e.start_time)),
        Output("endTime", Kind.INSTANT, to_utc(e.end_time)),
        Output("completionStartTime", Kind.INSTANT, to_utc(e.completion_start_time)),
        Output("environment", Kind.TEXT, to_plain_text(e.environment)),
        Output("version", Kind.TEXT, e.version),
        Output("userId", Kind.TEXT, e.user_id),
        Output("sessionId", Kind.TEXT, e.session_id),
        Output("level", Kind.TEXT, to_plain_text(e.level)),
        Output("statusMessage", Kind.TEXT, e.status_message),
        Output("promptName", Kind.TEXT, e.prompt_name),
        Output("promptId", Kind.TEXT, e.prompt_id),
        Output("promptVersion", Kind.INTEGER, e.prompt_version),
        Output("modelId", Kind.TEXT, e.model_id),
        Output("providedModelName", Kind.TEXT, e.provided_model_name),
        Output("modelParameters", Kind.MAYBE_JSON, e.model_parameters),
        Output("usageDetails", Kind.JSON, func.toJSONString(e.usage_details)),
        Output("costDetails", Kind.JSON, func.toJSONString(e.cost_details)),
        Output("totalCost", Kind.DECIMAL, to_cost(get_total(e.cost_details))),
        Output("input", Kind.MAYBE_JSON, e.input),
        Output("output", Kind.MAYBE_JSON, e.output),
        Output("metadata", Kind.JSON, to_string_object(details), nested=to_json_object(details)),
        Output("latencyMs", Kind.INTEGER, milliseconds_between(e.start_time, e.end_time)),
        Output("timeToFirstTokenMs", Kind.INTEGER, milliseconds_between(e.start_time, e.completion_start_time)),
        Output("tags", Kind.LIST, e.tags),
        Output("release", Kind.TEXT, e.release),
        Output("parentObservationId", Kind.TEXT, e.parent_span_id),
    ),
    filterables=(
        Filterable("environment", ("Environment",), "stringOptions", to_plain_text(e.environment), empty_is_null=True),
        Filterable(
            "ingestionApiKey", ("API Key",), "stringOptions", to_plain_text(e.ingestion_api_key), empty_is_null=True
        ),
        Filterable(
            "ingestionSdkName", ("SDK Name",), "stringOptions", to_plain_text(e.ingestion_sdk_name), empty_is_null=True
        ),
        Filterable(
            "ingestionSdkVersion",
            ("SDK Version",),
            "stringOptions",
            to_plain_text(e.ingestion_sdk_version),
            empty_is_null=True,
        ),
        Filterable(
            "ingestionSource", ("Ingestion Source",), "stringOptions", to_plain_text(e.source), empty_is_null=True
        ),
        Filterable("type", ("Type",), "stringOptions", to_plain_text(e.type), empty_is_null=True),
        Filterable("id", ("ID",), "stringOptions", to_plain_text(e.span_id), empty_is_null=True),
        Filterable("name", ("Name",), "stringOptions", to_plain_text(e.name), empty_is_null=True),
        Filterable("traceId", ("Trace ID",), "string", to_plain_text(e.trace_id), empty_is_null=True),
        Filterable("startTime", ("Start Time",), "datetime", e.start_time, day=minute),
        Filterable("endTime", ("End Time",), "datetime", e.end_time),
        Filterable(
            "timeToFirstToken",
            ("Time To First Token (s)",),
            "number",
            seconds_between(e.start_time, e.completion_start_time),
            places=MILLISECONDS_DIGITS,
        ),
        Filterable(
            "latency", ("Latency (s)",), "number", seconds_between(e.start_time, e.end_time), places=MILLISECONDS_DIGITS
        ),
        Filterable("tokensPerSecond", ("Tokens per second",), "number", per_second(used, e.start_time, e.end_time)),
        Filterable(
            "inputCost", ("Input Cost ($)",), "number", sum_containing(e.cost_details, "input"), places=COST_DIGITS
        ),
        Filterable(
            "outputCost", ("Output Cost ($)",), "number", sum_containing(e.cost_details, "output"), places=COST_DIGITS
        ),
        Filterable("totalCost", ("Total Cost ($)",), "number", get_total_or_null(e.cost_details), places=COST_DIGITS),
        Filterable("level", ("Level",), "stringOptions", to_plain_text(e.level), empty_is_null=True),
        Filterable("statusMessage", ("Status Message",), "string", to_plain_text(e.status_message), empty_is_null=True),
        Filterable("model", ("Model",), "stringOptions", to_plain_text(e.provided_model_name), empty_is_null=True),
        Filterable(
            "providedModelName",
            ("Provided Model Name",),
            "stringOptions",
            to_plain_text(e.provided_model_name),
            empty_is_null=True,
        ),
        Filterable("modelId", ("Model ID",), "stringOptions", to_plain_text(e.model_id), empty_is_null=True),
        Filterable("inputTokens", ("Input Tokens",), "number", sum_containing(e.usage_details, "input"), places=0),
        Filterable("outputTokens", ("Output Tokens",), "number", used, places=0),
        Filterable("totalTokens", ("Total Tokens",), "number", get_total_or_null(e.usage_details), places=0),
        Filterable("tokens", ("Tokens",), "number", get_total_or_null(e.usage_details), places=0),
        Filterable("metadata", ("Metadata",), "stringObject", details, full_text=True),
        Filterable("evaluatorId", ("Evaluator ID",), "stringOptions", get_map_value(details, "evaluator_id")),
        Filterable(
            "ruleId",
            ("Rule ID",),
            "stringOptions",
            func.coalesce(get_map_value(details, "evaluation_rule_id"), get_map_value(details, "job_configuration_id")),
        ),
        Filterable("version", ("Version",), "string", to_plain_text(e.version), empty_is_null=True),
        Filterable("release", ("Release",), "string", to_plain_text(e.release), empty_is_null=True),
        Filterable("promptName", ("Prompt Name",), "stringOptions", to_plain_text(e.prompt_name), empty_is_null=True),
        Filterable("promptVersion", ("Prompt Version",), "number", e.prompt_version, places=0),
        Filterable("input", ("Input",), "string", to_plain_text(e.input), full_text=True, empty_is_null=True),
        Filterable("output", ("Output",), "string", to_plain_text(e.output), full_text=True, empty_is_null=True),
        Filterable("sessionId", ("Session ID",), "string", to_plain_text(e.session_id), empty_is_null=True),
        Filterable("traceName", ("Trace Name",), "stringOptions", get_trace_name(e)),
        Filterable("userId", ("User ID",), "string", to_plain_text(e.user_id), empty_is_null=True),
        Filterable("traceTags", ("Trace Tags",), "arrayOptions", e.tags),
        Filterable("tags", ("Tags",), "arrayOptions", e.tags),
        Filterable(
            "traceEnvironment",
            ("Trace Environment",),
            "stringOptions",
            to_plain_text(e.environment),
            empty_is_null=True,
        ),
        Filterable("hasParentObservation", ("Has Parent Observation",), "boolean", e.parent_span_id != bind_text("")),
        Filterable("isRootObservation", ("Is Root Observation",), "boolean", is_root(e)),
        Filterable("hasInput", ("Has Input",), "boolean", e.input != bind_text("")),
        Filterable("hasOutput", ("Has Output",), "boolean", e.output != bind_text("")),
        Filterable(
            "parentObservationId",
            ("Parent Observation ID",),
            "string",
            to_plain_text(e.parent_span_id),
            empty_is_null=True,
        ),
        Filterable(
            "experimentDatasetId",
            ("Experiment Dataset ID",),
            "stringOptions",
            to_plain_text(e.experiment_dataset_id),
            empty_is_null=True,
        ),
        Filterable(
            "experimentId", ("Experiment ID",), "stringOptions", to_plain_text(e.experiment_id), empty_is_null=True
        ),
        Filterable(
            "experimentName",
            ("Experiment Name",),
            "stringOptions",
            to_plain_text(e.experiment_name),
            empty_is_null=True,
        ),
        Filterable("isExperimentItemRootSpan", ("Is Experiment Item Root Span",), "boolean", is_experiment_root(e)),
        Filterable("toolDefinitions", ("Available Tools",), "number", func.length(e.tool_definitions), places=0),
        Filterable("toolCalls", ("Tool Calls",), "number", func.length(e.tool_calls), places=0),
        Filterable("toolNames", ("Tool Names",), "arrayOptions", func.mapKeys(e.tool_definitions)),
        Filterable("calledToolNames", ("Called Tool Names",), "arrayOptions", e.tool_call_names),
        ScoresFilterable("scores", ("Scores",), "scores", SCORE_LEVELS),
        ScoresFilterable("scores_avg", ("Scores (numeric)",), "numberObject", SCORE_LEVELS),
        ScoresFilterable("score_categories", ("Scores (categorical)",), "categoryOptions", SCORE_LEVELS),
        ScoresFilterable("score_booleans", ("Scores (boolean)",), "booleanObject", SCORE_LEVELS),
        ScoresFilterable("trace_scores_avg", ("Trace Scores (numeric)",), "numberObject", TRACE_SCORE_LEVEL),
        ScoresFilterable(
            "trace_score_categories", ("Trace Scores (categorical)",), "categoryOptions", TRACE_SCORE_LEVEL
        ),
        ScoresFilterable("trace_score_booleans", ("Trace Scores (boolean)",), "booleanObject", TRACE_SCORE_LEVEL),
        *comment_filterables("OBSERVATION", e.span_id),
        PositionFilterable(
            "positionInTrace", ("Position in Trace",), e.span_id, is_root(e), partial(select_at_position, source)
        ),
    ),
    searched={
        "id": (e.span_id, e.name, get_trace_name(e), e.user_id, e.session_id, e.trace_id),
        "content": (e.input, e.output),
        "input": (e.input,),
        "output": (e.output,),
    },
    moment=e.start_time,
    default_order=OrderBy(column="startTime", order="DESC"),
    order=(e.span_id,),
    wide=(e.input, e.output),
    comments_on="OBSERVATION",
    scores=SCORE_LEVELS,
)
