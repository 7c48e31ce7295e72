"""Expects the rows of `events`; empty text is shown as it is, and is null to `is null` and in a sort."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.oracle import parts
from tests.oracle.latest import latest
from tests.oracle.observations import ScoresOfSpans, is_root, tokens_per_second, tool_facts, trace_name
from tests.oracle.raw import World
from tests.oracle.spans import metadata_of, places
from tests.oracle.traces import in_and_out, maybe, metadata_facts
from tests.oracle.values import Empty, Item, Json, Metadata, Place, Row, Score, Table, listed

COLUMNS = listed(
    "id traceId traceName type name startTime endTime completionStartTime environment version userId "
    "sessionId level statusMessage promptName promptId promptVersion modelId providedModelName "
    "modelParameters usageDetails costDetails totalCost input output metadata latencyMs "
    "timeToFirstTokenMs tags release parentObservationId comments"
)
SAME_FACTS = listed(
    "id traceId traceName type name startTime endTime environment version userId sessionId level "
    "statusMessage promptName promptVersion modelId providedModelName release parentObservationId tags"
)
STORED_FACTS = {
    "ingestionApiKey": "ingestion_api_key",
    "ingestionSdkName": "ingestion_sdk_name",
    "ingestionSdkVersion": "ingestion_sdk_version",
    "ingestionSource": "source",
    "input": "input",
    "output": "output",
    "model": "provided_model_name",
    "traceEnvironment": "environment",
    "traceTags": "tags",
    "experimentDatasetId": "experiment_dataset_id",
    "experimentId": "experiment_id",
    "experimentName": "experiment_name",
}


def events(world: World, project_id: str, cutoff: datetime) -> Table:
    """The events before the cutoff; without an order, the last start comes first."""
    rows = [row for row in latest(world, "events_full", project_id) if row["start_time"] < cutoff]
    where = places([(row["trace_id"], row["span_id"], row["start_time"], is_root(row)) for row in rows])
    scores = ScoresOfSpans(world, project_id, cutoff)
    comments = parts.comments(world, project_id, "OBSERVATION")
    items = [
        _item(
            world,
            row,
            scores.of(row["trace_id"], row["span_id"]),
            comments.get(row["span_id"], []),
            where[row["span_id"]],
        )
        for row in rows
    ]
    return Table("events", COLUMNS, tuple(items), scores.names, lambda item: parts.back(item.cells["startTime"]))


def _item(
    world: World,
    row: Row,
    scores: tuple[tuple[Score, ...], tuple[Score, ...]],
    comments: Sequence[Row],
    place: Place,
) -> Item:
    own, trace_level = scores
    cells = _cells(row) | {"comments": parts.comment_cell(world, comments)}
    facts = {
        **_facts(row, cells),
        **parts.score_facts(own + trace_level),
        **parts.score_facts(trace_level, "trace_"),
        **parts.comment_facts(comments),
        "positionInTrace": place,
    }
    names = ("span_id", "name", "user_id", "session_id", "trace_id")
    texts = {"id": (*(row[name] for name in names), trace_name(row)), **in_and_out(row)}
    return Item(row["span_id"], cells, facts, texts, own + trace_level)


def _cells(row: Row) -> dict[str, Any]:
    return {
        "id": row["span_id"],
        "traceId": row["trace_id"],
        "traceName": trace_name(row),
        "type": row["type"],
        "name": row["name"],
        "startTime": row["start_time"],
        "endTime": row["end_time"],
        "completionStartTime": row["completion_start_time"],
        "environment": row["environment"],
        "version": row["version"],
        "userId": row["user_id"],
        "sessionId": row["session_id"],
        "level": row["level"],
        "statusMessage": row["status_message"],
        "promptName": row["prompt_name"],
        "promptId": row["prompt_id"],
        "promptVersion": row["prompt_version"],
        "modelId": row["model_id"],
        "providedModelName": row["provided_model_name"],
        "modelParameters": maybe(row["model_parameters"]),
        "usageDetails": Json(row["usage_details"]),
        "costDetails": Json(row["cost_details"]),
        "totalCost": row["cost_details"].get("total", Decimal(0)),
        "input": maybe(row["input"]),
        "output": maybe(row["output"]),
        "metadata": Metadata(metadata_of(row), parsed=False),
        "latencyMs": parts.milliseconds(row["start_time"], row["end_time"]),
        "timeToFirstTokenMs": parts.milliseconds(row["start_time"], row["completion_start_time"]),
        "tags": row["tags"],
        "release": row["release"],
        "parentObservationId": row["parent_span_id"],
    }


def _facts(row: Row, cells: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        **{name: cells[name] for name in SAME_FACTS},
        **{name: row[column] for name, column in STORED_FACTS.items()},
        **parts.usage_facts(row["usage_details"], row["cost_details"]),
        **tool_facts(row),
        "latency": parts.seconds(row["start_time"], row["end_time"]),
        "timeToFirstToken": parts.seconds(row["start_time"], row["completion_start_time"]),
        "tokensPerSecond": tokens_per_second(row),
        "hasParentObservation": bool(row["parent_span_id"]),
        "isRootObservation": is_root(row),
        "hasInput": bool(row["input"]),
        "hasOutput": bool(row["output"]),
        "isExperimentItemRootSpan": row["experiment_item_root_span_id"] == row["span_id"],
    }
    return {name: Empty() if value == "" else value for name, value in facts.items()} | metadata_facts(metadata_of(row))
