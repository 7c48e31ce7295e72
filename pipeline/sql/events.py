"""Declares Langfuse's table of events, where text is never null: empty text means that a value is missing."""

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, DateTime64, Decimal, Map, UInt64
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from clickhouse_connect.cc_sqlalchemy.sql.clauses import Lambda
from sqlalchemy import Boolean, ColumnElement, Integer, String, case, column, func, or_, table

from pipeline.sql.clickhouse import bind_text
from pipeline.sql.sources import Columns, Source

_TEXTS = (
    *("project_id", "trace_id", "span_id", "parent_span_id", "name", "type", "environment", "version", "release"),
    *("trace_name", "user_id", "session_id", "level", "status_message", "prompt_id", "prompt_name", "model_id"),
    *("provided_model_name", "model_parameters", "usage_pricing_tier_id", "usage_pricing_tier_name", "input", "output"),
    *("experiment_id", "experiment_name", "experiment_dataset_id", "experiment_item_root_span_id", "source"),
    *("ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"),
)
_INSTANTS = ("start_time", "end_time", "completion_start_time", "created_at", "updated_at", "event_ts")
_TRUTHS = ("is_app_root", "bookmarked", "public")
_INTEGERS = ("prompt_version", "is_deleted")
_LISTS = ("tags", "tool_calls", "tool_call_names", "metadata_names", "metadata_values")
_USAGES = ("provided_usage_details", "usage_details")
_COSTS = ("provided_cost_details", "cost_details")

events = Source(
    table(
        "events_full",
        *(column(name, String()) for name in _TEXTS),
        *(column(name, DateTime64(6)) for name in _INSTANTS),
        *(column(name, Boolean()) for name in _TRUTHS),
        *(column(name, Integer()) for name in _INTEGERS),
        *(column(name, Array(ChString())) for name in _LISTS),
        *(column(name, Map(ChString(), UInt64())) for name in _USAGES),
        *(column(name, Map(ChString(), Decimal(18, 12))) for name in _COSTS),
        column("tool_definitions", Map(ChString(), ChString())),
    ),
    # The sorting key also has the minute, which follows from the instant.
    merge_key=lambda c: (c.start_time, func.xxHash32(c.trace_id)),
    identity="span_id",
    later=frozenset({"ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"}),
)


def to_plain_text(value: ColumnElement[str]) -> ColumnElement[str]:
    """Return a text as a plain String, also if the table stores it in a dictionary."""
    return func.toString(value, type_=String())


def null_if_empty(value: ColumnElement[str]) -> ColumnElement[str]:
    """Return a text, or null if it is empty."""
    return func.nullIf(to_plain_text(value), bind_text(""), type_=String())


def get_metadata(e: Columns) -> ColumnElement[dict[str, str]]:
    """Return an event's metadata as a map; if a name occurs twice, the first one counts."""
    names = func.arrayDistinct(e.metadata_names)
    value = func.arrayElement(e.metadata_values, func.indexOf(e.metadata_names, column("n", String())))
    values = func.arrayMap(Lambda(("n",), value), names)  # type: ignore[no-untyped-call] # the library has no types
    return func.mapFromArrays(names, values)


def get_trace_name(e: Columns) -> ColumnElement[str]:
    """Return the trace name that an event has, else its own name if it has no parent, else null."""
    own = case((e.parent_span_id == bind_text(""), null_if_empty(e.name)))
    return func.coalesce(null_if_empty(e.trace_name), own, type_=String())


def is_root(e: Columns) -> ColumnElement[bool]:
    """Return whether an event is the root of its trace, or of an application in it."""
    return or_(e.parent_span_id == bind_text(""), e.is_app_root)


def is_experiment_root(e: Columns) -> ColumnElement[bool]:
    """Return whether an event is the root of an experiment's item."""
    same: ColumnElement[bool] = e.experiment_item_root_span_id == e.span_id
    return same
