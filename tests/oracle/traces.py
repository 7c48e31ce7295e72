"""Expects the rows of `traces`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.oracle import parts
from tests.oracle.raw import World
from tests.oracle.spans import live_traces, span_rows
from tests.oracle.values import Item, MaybeJson, Metadata, Row, Table, listed

COLUMNS = listed(
    "id timestamp name userId sessionId release version environment tags bookmarked public input output "
    "metadata comments"
)
LEVELS = ("ERROR", "WARNING", "DEFAULT", "DEBUG")


def traces(world: World, project_id: str, cutoff: datetime) -> Table:
    """The traces before the cutoff; derived from events where the project has no legacy trace at all."""
    events = not world.of("traces", project_id)
    found = live_traces(world, project_id, events=events)
    observations = parts.grouped(span_rows(world, project_id, events=events), lambda row: row["trace_id"])
    all_scores = parts.shown_scores(world, project_id, cutoff)
    scores = parts.grouped(all_scores, lambda row: row["trace_id"])
    comments = parts.comments(world, project_id, "TRACE")
    items = [
        _item(world, trace, observations.get(key, []), scores.get(key, []), comments.get(key, []))
        for key, trace in found.items()
        if trace["timestamp"] < cutoff
    ]
    return Table("traces", COLUMNS, tuple(items), parts.score_names(all_scores))


def _item(
    world: World, trace: Row, observations: Sequence[Row], scores: Sequence[Row], comments: Sequence[Row]
) -> Item:
    values = parts.values_of(scores)
    cells = {
        "id": trace["id"],
        "timestamp": trace["timestamp"],
        "name": trace["name"],
        "userId": trace["user_id"],
        "sessionId": trace["session_id"],
        "release": trace["release"],
        "version": trace["version"],
        "environment": trace["environment"],
        "tags": trace["tags"],
        "bookmarked": trace["bookmarked"],
        "public": trace["public"],
        "input": maybe(trace["input"]),
        "output": maybe(trace["output"]),
        "metadata": Metadata(trace["metadata"], parsed=False),
        "comments": parts.comment_cell(world, comments),
    }
    facts = {
        **{
            name: cells[name]
            for name in listed("bookmarked id timestamp userId sessionId version release environment tags")
        },
        "traceId": trace["id"],
        "name": trace["name"],
        "traceName": trace["name"],
        "traceTags": trace["tags"],
        **metadata_facts(trace["metadata"]),
        **observation_facts(observations),
        **parts.score_facts(values),
        **parts.comment_facts(comments),
    }
    texts = {"id": (trace["id"], trace["user_id"], trace["name"]), **in_and_out(trace)}
    return Item(trace["id"], cells, facts, texts, values)


def metadata_facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What filters see of the metadata of a trace or event."""
    return {
        "metadata": [metadata],
        "evaluatorId": parts.first_of(metadata, "evaluator_id"),
        "ruleId": parts.first_of(metadata, "evaluation_rule_id", "job_configuration_id"),
    }


def observation_facts(observations: Sequence[Row]) -> dict[str, Any]:
    """What filters on a trace see of its observations; none have no level and no latency, and count 0."""
    levels = [row["level"] for row in observations]
    around = parts.span(observations)
    return {
        "level": next((level for level in LEVELS if level in levels), None),
        **{f"{level.lower()}Count": levels.count(level) for level in LEVELS},
        **parts.usage_facts(
            parts.added(row["usage_details"] for row in observations),
            parts.added(row["cost_details"] for row in observations),
            containing=parts.containing_in_any_case,
        ),
        "latency": parts.seconds(*around) if around else None,
    }


def maybe(text: str | None) -> MaybeJson | None:
    """The cell of a text that may hold JSON."""
    return None if text is None else MaybeJson(text)


def in_and_out(row: Row) -> dict[str, tuple[str | None, ...]]:
    """What a search in input and output looks at."""
    return {"input": (row["input"],), "output": (row["output"],), "content": (row["input"], row["output"])}
