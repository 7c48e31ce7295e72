"""Raw rows with plain values, so that a test names only what it is about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tests.oracle.expected import expected, table_of
from tests.oracle.raw import CLICKHOUSE_TABLES, SQL_TABLES, World
from tests.oracle.values import Expected, Table

P = "p"
CUTOFF = datetime(2026, 3, 15, 12, tzinfo=UTC)
EARLY = datetime(2026, 3, 1, 12, tzinfo=UTC)
_ticks = count(1)


def _clickhouse(**fields: Any) -> dict[str, Any]:
    stamp = EARLY + timedelta(milliseconds=next(_ticks))
    return {"project_id": P, "created_at": EARLY, "updated_at": EARLY, "event_ts": stamp, "is_deleted": 0, **fields}


def trace(trace_id: str, **fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        **dict.fromkeys(("user_id", "session_id", "release", "version", "input", "output")),
        "timestamp": EARLY,
        "name": "",
        "environment": "default",
        "tags": [],
        "metadata": {},
        "bookmarked": False,
        "public": False,
    }
    return _clickhouse(id=trace_id, **{**plain, **fields})


def _span(**fields: Any) -> dict[str, Any]:
    return _clickhouse(
        **{
            **dict.fromkeys(("end_time", "completion_start_time", "prompt_version")),
            **dict.fromkeys(("usage_pricing_tier_id", "usage_pricing_tier_name")),
            "start_time": EARLY,
            "environment": "default",
            "type": "SPAN",
            "name": "",
            "level": "DEFAULT",
            "usage_details": {},
            "provided_usage_details": {},
            "cost_details": {},
            "provided_cost_details": {},
            "tool_definitions": {},
            "tool_calls": [],
            "tool_call_names": [],
            **fields,
        }
    )


def observation(span_id: str, trace_id: str, **fields: Any) -> dict[str, Any]:
    missing = (
        *("parent_observation_id", "status_message", "version", "input", "output", "provided_model_name"),
        *("internal_model_id", "model_parameters", "prompt_id", "prompt_name"),
    )
    return _span(**{"id": span_id, "trace_id": trace_id, "metadata": {}, **dict.fromkeys(missing), **fields})


def event(span_id: str, trace_id: str, **fields: Any) -> dict[str, Any]:
    empty = (
        *("parent_span_id", "version", "release", "trace_name", "user_id", "session_id", "status_message", "source"),
        *("prompt_id", "prompt_name", "model_id", "provided_model_name", "model_parameters", "input", "output"),
        *("experiment_id", "experiment_name", "experiment_dataset_id", "experiment_item_root_span_id"),
        *("ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"),
    )
    lists: dict[str, Any] = {"tags": [], "metadata_names": [], "metadata_values": []}
    flags = dict.fromkeys(("is_app_root", "bookmarked", "public"), False)
    plain = {**dict.fromkeys(empty, ""), **lists, **flags}
    return _span(**{"span_id": span_id, "trace_id": trace_id, **plain, **fields})


def score(score_id: str, name: str, value: float = 0.0, **fields: Any) -> dict[str, Any]:
    missing = (
        *("trace_id", "session_id", "dataset_run_id", "observation_id", "comment", "author_user_id"),
        *("string_value", "execution_trace_id"),
    )
    plain = {"timestamp": EARLY, "environment": "default", "source": "API", "metadata": {}, "data_type": "NUMERIC"}
    plain["long_string_value"] = ""
    return _clickhouse(**{"id": score_id, "name": name, "value": value, **dict.fromkeys(missing), **plain, **fields})


def comment(comment_id: str, object_type: str, object_id: str, content: str, **fields: Any) -> dict[str, Any]:
    plain = {"project_id": P, "author_user_id": None, "created_at": EARLY}
    named = {"id": comment_id, "object_type": object_type, "object_id": object_id, "content": content}
    return {**plain, **named, **fields}


def world(**tables: Sequence[Mapping[str, Any]]) -> World:
    return World({**dict.fromkeys((*CLICKHOUSE_TABLES, *SQL_TABLES), ()), **tables})


def table(of: World, name: str, *, events: bool = False) -> Table:
    return table_of(of, P, name, CUTOFF, use_events_table=events)


def rows(of: World, name: str, *, events: bool = False) -> Expected:
    return expected(table(of, name, events=events), {"filter": None, "orderBy": None})
