"""Declares the table `scores`."""

from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import Select, String, case, column, func, null

from pipeline.enrich.authors import AUTHOR, AUTHOR_ID, make_authors
from pipeline.sql.clickhouse import bind_text, get_map_value, is_one_of, to_json_object, to_utc
from pipeline.sql.named_values import bind_project
from pipeline.sql.scores import EXPORTED_TYPES
from pipeline.sql.sources import is_latest, traces
from pipeline.sql.sources import scores as source
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import Filterable, Join, Output
from pipeline.types import Kind

rows = source.table.alias("s")
s = rows.c


def _select_traces(project_id: str, _cutoff: datetime) -> Select[Any]:
    """Select the columns that scores show of their trace, for the traces with scores."""
    t, any_version = traces.table.alias("t"), source.table.alias("scored")
    having_scores = select(any_version.c.trace_id).where(any_version.c.project_id == bind_project(project_id))
    return (
        select(
            t.c.id.label("traced_key"),
            func.toNullable(t.c.name).label("trace_name"),
            t.c.user_id.label("trace_user"),
            t.c.tags.label("trace_tags"),
        )
        .final(t)
        .prewhere(is_latest(traces, t, project_id))
        .where(t.c.id.in_(having_scores))
    )


TRACE_OF_SCORE = Join("traced", on=s.trace_id, rows=_select_traces)
trace_name, trace_user = column("trace_name", String()), column("trace_user", String())
trace_tags = column("trace_tags", Array(ChString()))
day = func.toDate(s.timestamp)
environment = func.toString(s.environment, type_=String())
string_value = case((s.data_type == bind_text("NUMERIC"), null()), else_=s.string_value)
boolean_value = case((s.data_type == bind_text("BOOLEAN"), s.value != 0))
evaluator = func.coalesce(get_map_value(s.metadata, "evaluator_id"), get_map_value(s.metadata, "job_configuration_id"))

SCORES = ClickHouseTable(
    name="scores",
    source=source,
    rows=rows,
    only=is_one_of(s.data_type, EXPORTED_TYPES),
    outputs=(
        Output("id", Kind.TEXT, s.id),
        Output("traceId", Kind.TEXT, s.trace_id),
        Output("sessionId", Kind.TEXT, s.session_id),
        Output("datasetRunId", Kind.TEXT, s.dataset_run_id),
        Output("timestamp", Kind.INSTANT, to_utc(s.timestamp)),
        Output("source", Kind.TEXT, s.source),
        Output("name", Kind.TEXT, s.name),
        Output("dataType", Kind.TEXT, s.data_type),
        Output("value", Kind.NUMBER, s.value),
        Output("stringValue", Kind.TEXT, string_value),
        Output("comment", Kind.TEXT, s.comment),
        Output("metadata", Kind.JSON, to_json_object(s.metadata)),
        Output("observationId", Kind.TEXT, s.observation_id),
        Output("traceName", Kind.TEXT, trace_name, join=TRACE_OF_SCORE),
        Output("userId", Kind.TEXT, trace_user, join=TRACE_OF_SCORE),
        Output("traceTags", Kind.LIST, trace_tags, join=TRACE_OF_SCORE),
        Output("environment", Kind.TEXT, environment),
        Output(AUTHOR, Kind.TEXT, None, made_of=AUTHOR_ID),
    ),
    enricher_inputs=(Output(AUTHOR_ID, Kind.TEXT, s.author_user_id),),
    filterables=(
        Filterable("id", ("ID",), "string", s.id),
        Filterable("timestamp", ("Timestamp",), "datetime", s.timestamp, day=day),
        Filterable("environment", ("Environment",), "stringOptions", environment),
        Filterable("traceId", ("Trace ID",), "string", s.trace_id),
        Filterable("observationId", ("Observation ID",), "string", s.observation_id),
        Filterable("sessionId", ("Session ID",), "string", s.session_id),
        Filterable("name", ("Name",), "stringOptions", s.name),
        Filterable("evaluatorId", ("Evaluator ID",), "stringOptions", evaluator),
        Filterable("value", ("Value",), "number", s.value),
        Filterable("booleanValue", ("Boolean Value",), "boolean", boolean_value),
        Filterable("source", ("Source",), "stringOptions", s.source),
        Filterable("comment", ("Comment",), "string", s.comment),
        Filterable("authorUserId", ("Author User ID",), "stringOptions", s.author_user_id),
        Filterable("dataType", ("Data Type",), "stringOptions", s.data_type),
        Filterable("stringValue", ("String Value",), "stringOptions", string_value),
        Filterable("metadata", ("Metadata",), "stringObject", s.metadata),
        Filterable("traceName", ("Trace Name",), "stringOptions", trace_name, join=TRACE_OF_SCORE),
        Filterable("userId", ("User ID",), "stringOptions", trace_user, join=TRACE_OF_SCORE),
        Filterable("trace_tags", ("Trace Tags",), "arrayOptions", trace_tags, join=TRACE_OF_SCORE),
    ),
    searched={
        "id": (s.id, s.name, s.trace_id, s.observation_id, s.session_id, trace_user),
        "content": (s.comment, string_value),
    },
    moment=s.timestamp,
    order=(day, s.name, s.id),
    wide=(s.comment, func.arrayStringConcat(func.mapValues(s.metadata))),
    enrichers=(make_authors,),
)
