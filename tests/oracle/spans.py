"""Gives the observations of a project one shape, whether they come from `observations` or from `events_full`.

On the events tables text can't be null: there an empty text is a missing value. `span_rows` keeps the names of the
legacy table and turns empty text to None where the legacy column can be null.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tests.oracle.latest import latest
from tests.oracle.parts import grouped
from tests.oracle.raw import World
from tests.oracle.values import Place, Row, listed

RENAMED = {"id": "span_id", "parent_observation_id": "parent_span_id", "internal_model_id": "model_id"}
NULLABLE = listed(
    "parent_observation_id status_message version input output provided_model_name internal_model_id "
    "model_parameters prompt_id prompt_name"
)
SAME = listed(
    "trace_id project_id environment type start_time end_time name level status_message version input "
    "output provided_model_name model_parameters provided_usage_details usage_details "
    "provided_cost_details cost_details completion_start_time prompt_id prompt_name prompt_version "
    "created_at updated_at event_ts usage_pricing_tier_id usage_pricing_tier_name tool_definitions "
    "tool_calls tool_call_names"
)


def metadata_of(event: Row) -> dict[str, str]:
    """An event's metadata as a map."""
    return dict(zip(event["metadata_names"], event["metadata_values"], strict=True))


def from_event(event: Row) -> dict[str, Any]:
    """One event in the shape of a legacy observation."""
    row = {name: event[name] for name in SAME} | {name: event[source] for name, source in RENAMED.items()}
    return row | {name: row[name] or None for name in NULLABLE} | {"metadata": metadata_of(event)}


def span_rows(world: World, project_id: str, *, events: bool) -> list[Row]:
    """The live observations of a project in the shape of the legacy table."""
    if events:
        return [from_event(event) for event in latest(world, "events_full", project_id)]
    return list(latest(world, "observations", project_id))


def places(rows: Sequence[tuple[str, str, datetime, bool]]) -> dict[str, Place]:
    """Where each of (trace id, id, start, whether root) stands in its trace, by start and then id."""
    result = {}
    for spans in grouped([dict(zip("tisr", row, strict=True)) for row in rows], lambda row: row["t"]).values():
        inside = sorted(spans, key=lambda row: (row["s"], row["i"]))
        for index, row in enumerate(inside):
            result[row["i"]] = Place(index + 1, len(inside) - index, row["r"])
    return result


def live_traces(world: World, project_id: str, *, events: bool) -> dict[str, Row]:
    """The traces of a project by id, in the shape of the legacy table; from events: derived ones."""
    if not events:
        return {row["id"]: row for row in latest(world, "traces", project_id)}
    by_trace = grouped(latest(world, "events_full", project_id), lambda row: row["trace_id"])
    return {trace_id: derived_trace(trace_id, rows) for trace_id, rows in sorted(by_trace.items())}


def derived_trace(trace_id: str, events: Sequence[Row]) -> Row:
    """A trace made of its events.

    Input, output, metadata and bookmarked are the root's: the earliest event without a parent. The fields that every
    event repeats are taken from the event with the highest event_ts that has one. The name may also be the root's own.
    """
    roots = sorted(
        (row for row in events if not row["parent_span_id"]), key=lambda row: (row["start_time"], row["span_id"])
    )
    root = roots[0] if roots else None

    def repeated(field: str) -> str | None:
        found = [row for row in events if row[field]]
        return max(found, key=lambda row: (row["event_ts"], row["span_id"]))[field] if found else None

    return {
        "id": trace_id,
        "timestamp": min(row["start_time"] for row in events),
        "name": repeated("trace_name") or (root["name"] if root else ""),
        "user_id": repeated("user_id"),
        "session_id": repeated("session_id"),
        "release": repeated("release"),
        "version": repeated("version"),
        "environment": repeated("environment") or "",
        "tags": sorted({tag for row in events for tag in row["tags"]}),
        "bookmarked": bool(root and root["bookmarked"]),
        "public": any(row["public"] for row in events),
        "input": (root["input"] or None) if root else None,
        "output": (root["output"] or None) if root else None,
        "metadata": metadata_of(root) if root else {},
    }
