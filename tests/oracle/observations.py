"""Expects the rows of `observations`, from the legacy tables or, with `useEventsTable`, from the events tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.oracle import parts
from tests.oracle.latest import latest
from tests.oracle.raw import World
from tests.oracle.spans import live_traces, metadata_of, places, span_rows
from tests.oracle.traces import in_and_out, maybe, metadata_facts
from tests.oracle.values import Empty, Item, Json, Metadata, Row, Score, Table, listed

COLUMNS = listed(
    "id traceId startTime endTime projectId parentObservationId type environment name level statusMessage "
    "version createdAt updatedAt input output metadata model internalModelId modelParameters "
    "completionStartTime promptId promptName promptVersion latency timeToFirstToken providedUsageDetails "
    "usageDetails costDetails providedCostDetails inputCost outputCost totalCost inputUsage outputUsage "
    "totalUsage usagePricingTierId usagePricingTierName toolDefinitions toolCalls toolCallNames traceName "
    "traceTags traceTimestamp userId toolDefinitionsCount toolCallsCount modelId inputPrice outputPrice "
    "totalPrice comments"
)
SAME_FACTS = listed(
    "id traceId startTime endTime parentObservationId type environment name level statusMessage version "
    "latency timeToFirstToken model promptName promptVersion userId traceTags"
)

STORED_FACTS = {
    "ingestionApiKey": "ingestion_api_key",
    "ingestionSdkName": "ingestion_sdk_name",
    "ingestionSdkVersion": "ingestion_sdk_version",
    "ingestionSource": "source",
    "input": "input",
    "output": "output",
    "experimentDatasetId": "experiment_dataset_id",
    "experimentId": "experiment_id",
    "experimentName": "experiment_name",
}
TEXT_FACTS = listed(
    "id traceId parentObservationId type environment name level statusMessage version model promptName userId "
    "sessionId traceEnvironment modelId"
)


@dataclass(frozen=True)
class TraceFields:
    """What an observation shows of its trace; all missing when the trace is not there."""

    name: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    environment: str | None = None
    tags: tuple[str, ...] = ()
    timestamp: datetime | None = None


def observations(world: World, project_id: str, cutoff: datetime, *, events: bool) -> Table:
    """The observations before the cutoff."""
    rows = [row for row in span_rows(world, project_id, events=events) if row["start_time"] < cutoff]
    fields = _fields_of_events(world, project_id) if events else _fields_of_traces(world, project_id, rows)
    roots = _roots(world, project_id, rows, events=events)
    where = places([(row["trace_id"], row["id"], row["start_time"], row["id"] in roots) for row in rows])
    scores = ScoresOfSpans(world, project_id, cutoff)
    comments = parts.comments(world, project_id, "OBSERVATION")
    of_events = _facts_of_events(world, project_id) if events else {}
    items = []
    for row in rows:
        own, trace_level = scores.of(row["trace_id"], row["id"])
        values = own + trace_level if events else own
        mine = comments.get(row["id"], [])
        cells = _cells(world, row, fields[row["id"]]) | {"comments": parts.comment_cell(world, mine)}
        facts = {
            **_facts(row, cells, fields[row["id"]], events=events),
            **parts.score_facts(values),
            **parts.comment_facts(mine),
            "positionInTrace": where[row["id"]],
        }
        if events:
            facts |= of_events[row["id"]] | parts.score_facts(trace_level, "trace_")
        texts = {"id": _searched(row, fields[row["id"]], events=events), **in_and_out(row)}
        items.append(Item(row["id"], cells, facts, texts, values))
    return Table("observations", COLUMNS, tuple(items), scores.names, of_events=events)


class ScoresOfSpans:
    """The scores of a project by what they are about: an observation, or a trace as such."""

    def __init__(self, world: World, project_id: str, cutoff: datetime) -> None:
        rows = parts.shown_scores(world, project_id, cutoff)
        self.names = parts.score_names(rows)
        self._by_target = parts.grouped(rows, lambda row: (row["trace_id"], row["observation_id"]))

    def of(self, trace_id: str, span_id: str) -> tuple[tuple[Score, ...], tuple[Score, ...]]:
        """The values of the observation's scores, and each of the scores of its trace that name no observation."""
        own = parts.values_of(self._by_target.get((trace_id, span_id), []), apart="comment")
        return own, parts.values_of(self._by_target.get((trace_id, None), []), apart="id")


def _fields_of_traces(world: World, project_id: str, rows: list[Row]) -> dict[str, TraceFields]:
    found = live_traces(world, project_id, events=False)
    return {row["id"]: fields_of_trace(found.get(row["trace_id"])) for row in rows}


def fields_of_trace(trace: Row | None) -> TraceFields:
    if trace is None:
        return TraceFields()
    tags = tuple(trace["tags"])
    same = {name: trace[name] for name in ("name", "user_id", "session_id", "environment", "timestamp")}
    return TraceFields(**same, tags=tags)


def _fields_of_events(world: World, project_id: str) -> dict[str, TraceFields]:
    return {
        event["span_id"]: TraceFields(
            trace_name(event),
            event["user_id"] or None,
            event["session_id"] or None,
            event["environment"] or None,
            tuple(event["tags"]),
        )
        for event in latest(world, "events_full", project_id)
    }


def _facts_of_events(world: World, project_id: str) -> dict[str, dict[str, Any]]:
    """What filters see of events besides the columns of observations."""
    return {row["span_id"]: _facts_of_event(row) for row in latest(world, "events_full", project_id)}


def _facts_of_event(event: Row) -> dict[str, Any]:
    stored = {name: event[column] or Empty() for name, column in STORED_FACTS.items()}
    return {
        **stored,
        **metadata_facts(metadata_of(event)),
        "release": event["release"] or Empty(),
        "providedModelName": event["provided_model_name"] or Empty(),
        "tags": event["tags"],
        "hasParentObservation": bool(event["parent_span_id"]),
        "isRootObservation": is_root(event),
        "hasInput": bool(event["input"]),
        "hasOutput": bool(event["output"]),
        "isExperimentItemRootSpan": event["experiment_item_root_span_id"] == event["span_id"],
    }


def trace_name(event: Row) -> str | None:
    """The name of an event's trace: as the event says, else the event's own where it is the root."""
    own = "" if event["parent_span_id"] else event["name"]
    return event["trace_name"] or own or None


def _roots(world: World, project_id: str, rows: list[Row], *, events: bool) -> set[str]:
    if events:
        found = latest(world, "events_full", project_id)
        return {event["span_id"] for event in found if is_root(event)}
    return {row["id"] for row in rows if not row["parent_observation_id"]}


def is_root(event: Row) -> bool:
    """Whether an event is the root of its trace or of an application in it."""
    return not event["parent_span_id"] or event["is_app_root"]


def _searched(row: Row, fields: TraceFields, *, events: bool) -> tuple[str | None, ...]:
    if events:
        return (row["id"], row["name"], fields.name, fields.user_id, fields.session_id, row["trace_id"])
    return (row["id"], fields.user_id, row["name"])


def _cells(world: World, row: Row, trace: TraceFields) -> dict[str, Any]:
    cost, usage = row["cost_details"], row["usage_details"]
    model, prices = _model(world, row["project_id"], row["internal_model_id"])
    return {
        "id": row["id"],
        "traceId": row["trace_id"],
        "startTime": row["start_time"],
        "endTime": row["end_time"],
        "projectId": row["project_id"],
        "parentObservationId": row["parent_observation_id"],
        "type": row["type"],
        "environment": row["environment"],
        "name": row["name"],
        "level": row["level"],
        "statusMessage": row["status_message"],
        "version": row["version"],
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "input": maybe(row["input"]),
        "output": maybe(row["output"]),
        "metadata": Metadata(row["metadata"], parsed=True),
        "model": row["provided_model_name"],
        "internalModelId": row["internal_model_id"],
        "modelParameters": maybe(row["model_parameters"]),
        "completionStartTime": row["completion_start_time"],
        "promptId": row["prompt_id"],
        "promptName": row["prompt_name"],
        "promptVersion": row["prompt_version"],
        "latency": parts.seconds(row["start_time"], row["end_time"]),
        "timeToFirstToken": parts.seconds(row["start_time"], row["completion_start_time"]),
        "providedUsageDetails": Json(row["provided_usage_details"]),
        "usageDetails": Json(usage),
        "costDetails": Json(cost),
        "providedCostDetails": Json(row["provided_cost_details"]),
        "inputCost": parts.containing(cost, "input"),
        "outputCost": parts.containing(cost, "output"),
        "totalCost": cost.get("total", Decimal(0)),
        "inputUsage": parts.containing(usage, "input") or 0,
        "outputUsage": parts.containing(usage, "output") or 0,
        "totalUsage": usage.get("total", 0),
        "usagePricingTierId": row["usage_pricing_tier_id"],
        "usagePricingTierName": row["usage_pricing_tier_name"],
        "toolDefinitions": Json(row["tool_definitions"]),
        "toolCalls": row["tool_calls"],
        "toolCallNames": row["tool_call_names"],
        "traceName": trace.name,
        "traceTags": list(trace.tags),
        "traceTimestamp": trace.timestamp,
        "userId": trace.user_id,
        "toolDefinitionsCount": len(row["tool_definitions"]),
        "toolCallsCount": len(row["tool_calls"]),
        "modelId": model,
        "inputPrice": prices.get("input"),
        "outputPrice": prices.get("output"),
        "totalPrice": prices.get("total"),
    }


def _model(world: World, project_id: str, model_id: str | None) -> tuple[str | None, dict[str, Decimal]]:
    """The model if the project may see it (its own or everybody's), and the prices of its default tier."""
    mine = (None, project_id)
    if not any(model["id"] == model_id and model["project_id"] in mine for model in world.tables["models"]):
        return None, {}
    tiers = {
        tier["id"] for tier in world.tables["pricing_tiers"] if tier["model_id"] == model_id and tier["is_default"]
    }
    found = [price for price in world.tables["prices"] if price["pricing_tier_id"] in tiers]
    return model_id, {
        price["usage_type"]: price["price"]
        for price in found
        if price["model_id"] == model_id and price["project_id"] in mine
    }


def _facts(row: Row, cells: Mapping[str, Any], trace: TraceFields, *, events: bool) -> dict[str, Any]:
    facts = {
        **{name: cells[name] for name in SAME_FACTS},
        **parts.usage_facts(row["usage_details"], row["cost_details"]),
        **tool_facts(row),
        "traceName": trace.name,
        "sessionId": trace.session_id,
        "traceEnvironment": trace.environment,
        "modelId": row["internal_model_id"],
        "metadata": [row["metadata"]],
        "tokensPerSecond": tokens_per_second(row),
    }
    if events:
        facts |= {name: Empty() for name in TEXT_FACTS if not facts[name]}
    return facts


def tokens_per_second(row: Row) -> float | None:
    """Output tokens by seconds, both as floats; missing without an end. In no time: infinite, or NaN for no tokens."""
    passed = parts.milliseconds(row["start_time"], row["end_time"])
    tokens = parts.containing(row["usage_details"], "output") or 0
    if passed == 0:
        return math.inf if tokens else math.nan
    return None if passed is None else tokens / (passed / 1000)


def tool_facts(row: Row) -> dict[str, Any]:
    """What filters see of tools."""
    return {
        "toolDefinitions": len(row["tool_definitions"]),
        "toolCalls": len(row["tool_calls"]),
        "toolNames": list(row["tool_definitions"]),
        "calledToolNames": row["tool_call_names"],
    }
