"""Expects the rows of `dataset_items`, `dataset_run_items` and `audit_logs`."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.oracle import parts
from tests.oracle.latest import latest
from tests.oracle.raw import World
from tests.oracle.values import Item, Json, MaybeJson, Row, Table, listed

ITEM_COLUMNS = listed(
    "id projectId datasetId sourceTraceId sourceObservationId status createdAt updatedAt validFrom input "
    "expectedOutput metadata datasetName htmlSourcePath"
)
RUN_ITEM_COLUMNS = listed("id projectId datasetItemId traceId observationId createdAt updatedAt datasetName")
LOG_COLUMNS = {
    "id": "id",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "type": "type",
    "apiKeyId": "api_key_id",
    "userId": "user_id",
    "orgId": "org_id",
    "userOrgRole": "user_org_role",
    "projectId": "project_id",
    "userProjectRole": "user_project_role",
    "resourceType": "resource_type",
    "resourceId": "resource_id",
    "action": "action",
    "before": "before",
    "after": "after",
}


def dataset_items(world: World, project_id: str, cutoff: datetime) -> Table:
    """The items that are valid now and were created before the cutoff; without an order, the last valid_from first."""
    names = {row["id"]: row["name"] for row in world.of("datasets", project_id)}
    valid = [row for row in world.of("dataset_items", project_id) if row["valid_to"] is None]
    newest = {row["id"]: row for row in sorted(valid, key=lambda row: row["valid_from"])}
    items = [
        _dataset_item(row, names.get(row["dataset_id"]))
        for row in newest.values()
        if not row["is_deleted"] and row["created_at"] < cutoff
    ]
    return Table("dataset_items", ITEM_COLUMNS, tuple(items), (), lambda item: parts.back(item.cells["validFrom"]))


def _dataset_item(row: Row, dataset: str | None) -> Item:
    cells = {
        "id": row["id"],
        "projectId": row["project_id"],
        "datasetId": row["dataset_id"],
        "sourceTraceId": row["source_trace_id"],
        "sourceObservationId": row["source_observation_id"],
        "status": row["status"],
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "validFrom": row["valid_from"],
        "input": json_or_none(row["input"]),
        "expectedOutput": json_or_none(row["expected_output"]),
        "metadata": json_or_none(row["metadata"]),
        "datasetName": dataset,
        "htmlSourcePath": _path(row),
    }
    same = listed("id datasetId sourceTraceId sourceObservationId status createdAt validFrom")
    facts = {name: cells[name] for name in same} | {
        "metadata": [_top_level(row["metadata"])],
        "metadata there": row["metadata"] is not None,
    }
    texts = {
        "id": (row["id"], row["source_trace_id"], row["source_observation_id"], dataset),
        "input": (_document(row["input"]),),
        "output": (_document(row["expected_output"]),),
        "content": (_document(row["input"]), _document(row["expected_output"])),
    }
    return Item(row["id"], cells, facts, texts)


def json_or_none(value: Any) -> Json | None:
    """The cell of a JSON column; JSON's null is like no value."""
    return None if value is None else Json(value)


def _path(row: Row) -> str:
    if not row["source_trace_id"]:
        return ""
    path = f"/project/{row['project_id']}/traces/{row['source_trace_id']}"
    return f"{path}?observation={row['source_observation_id']}" if row["source_observation_id"] else path


def _top_level(metadata: Any) -> dict[str, str]:
    """The values of an object's keys as text: a string as it is, others as JSON writes them; null is none."""
    if not isinstance(metadata, dict):
        return {}
    return {key: _as_text(value) for key, value in metadata.items() if value is not None}


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, str | Decimal) else _document(value) or ""


def _document(value: Any) -> str | None:
    """JSON text as a search sees it; its white space is not promised."""
    return None if value is None else json.dumps(value, ensure_ascii=False, default=float)


def dataset_run_items(world: World, project_id: str, cutoff: datetime) -> Table:
    """The run items created before the cutoff; without an order, the last created and then the last event first."""
    names = {row["id"]: row["name"] for row in world.of("datasets", project_id)}
    scores = parts.grouped(parts.shown_scores(world, project_id, cutoff), lambda row: row["trace_id"])
    items = []
    for row in latest(world, "dataset_run_items_rmt", project_id):
        if row["created_at"] >= cutoff:
            continue
        dataset = names.get(row["dataset_id"], "Unknown")
        cells = {
            "id": row["id"],
            "projectId": row["project_id"],
            "datasetItemId": row["dataset_item_id"],
            "traceId": row["trace_id"],
            "observationId": row["observation_id"],
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
            "datasetName": dataset,
        }
        facts = {
            "datasetRunId": row["dataset_run_id"],
            "createdAt": row["created_at"],
            "eventTs": row["event_ts"],
            "datasetItemId": row["dataset_item_id"],
            "datasetId": row["dataset_id"],
            **parts.score_facts(parts.values_of(scores.get(row["trace_id"], [])), "agg_", categories=("CATEGORICAL",)),
        }
        texts = {"id": (row["id"], row["dataset_item_id"], row["trace_id"], row["observation_id"], dataset)}
        items.append(Item(row["id"], cells, facts, texts))
    return Table(
        "dataset_run_items",
        RUN_ITEM_COLUMNS,
        tuple(items),
        (),
        lambda item: (parts.back(item.facts["createdAt"]), parts.back(item.facts["eventTs"])),
    )


def audit_logs(world: World, project_id: str, cutoff: datetime) -> Table:
    """The entries before the cutoff; without an order, the last comes first."""
    items = []
    for row in world.of("audit_logs", project_id):
        if row["created_at"] >= cutoff:
            continue
        cells = {name: row[column] for name, column in LOG_COLUMNS.items()}
        cells |= {name: None if row[name] is None else MaybeJson(row[name]) for name in ("before", "after")}
        same = listed("createdAt type userId apiKeyId resourceType resourceId action")
        texts = {
            "id": (row["id"], row["resource_id"], row["user_id"], row["api_key_id"]),
            "content": (row["before"], row["after"]),
        }
        items.append(Item(row["id"], cells, {name: cells[name] for name in same}, texts))
    return Table("audit_logs", tuple(LOG_COLUMNS), tuple(items), (), lambda item: parts.back(item.cells["createdAt"]))
