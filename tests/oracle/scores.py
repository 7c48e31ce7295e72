"""Expects the rows of `scores`, with the fields of their traces from the legacy table or from the events."""

from datetime import datetime

from tests.oracle import parts
from tests.oracle.latest import latest
from tests.oracle.observations import TraceFields, fields_of_trace
from tests.oracle.raw import World
from tests.oracle.spans import live_traces
from tests.oracle.values import Item, Metadata, Row, Table, listed

COLUMNS = listed(
    "id traceId sessionId datasetRunId timestamp source name dataType value stringValue comment metadata "
    "observationId traceName userId traceTags environment authorUserName"
)


def scores(world: World, project_id: str, cutoff: datetime, *, events: bool) -> Table:
    """The scores of the types that are shown, dated before the cutoff."""
    traces = live_traces(world, project_id, events=events)
    names = {user["id"]: user["name"] for user in world.tables["users"]}
    items = [
        _item(row, fields_of_trace(traces.get(row["trace_id"])), names.get(row["author_user_id"]))
        for row in latest(world, "scores", project_id)
        if row["data_type"] in parts.SHOWN and row["timestamp"] < cutoff
    ]
    return Table("scores", COLUMNS, tuple(items))


def _item(row: Row, trace: TraceFields, author: str | None) -> Item:
    text = None if row["data_type"] == "NUMERIC" else row["string_value"]
    cells = {
        "id": row["id"],
        "traceId": row["trace_id"],
        "sessionId": row["session_id"],
        "datasetRunId": row["dataset_run_id"],
        "timestamp": row["timestamp"],
        "source": row["source"],
        "name": row["name"],
        "dataType": row["data_type"],
        "value": row["value"],
        "stringValue": text,
        "comment": row["comment"],
        "metadata": Metadata(row["metadata"], parsed=True),
        "observationId": row["observation_id"],
        "traceName": trace.name,
        "userId": trace.user_id,
        "traceTags": list(trace.tags),
        "environment": row["environment"],
        "authorUserName": author,
    }
    same = listed(
        "id timestamp environment traceId observationId sessionId name value source comment dataType "
        "stringValue traceName userId"
    )
    facts = {
        **{name: cells[name] for name in same},
        "evaluatorId": parts.first_of(row["metadata"], "evaluator_id", "job_configuration_id"),
        "booleanValue": row["value"] != 0 if row["data_type"] == "BOOLEAN" else None,
        "authorUserId": row["author_user_id"],
        "metadata": [row["metadata"]],
        "trace_tags": list(trace.tags),
    }
    texts = {
        "id": (row["id"], row["name"], row["trace_id"], row["observation_id"], row["session_id"], trace.user_id),
        "content": (row["comment"], text),
    }
    return Item(row["id"], cells, facts, texts)
