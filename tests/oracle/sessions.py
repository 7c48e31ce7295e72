"""Expects the rows of `sessions`: the traces, or with `useEventsTable` the events, that share a session id.

Filters of legacy sessions decide first which traces there are: a lower bound on createdAt is asked of each trace's
timestamp, a filter on the environment of each trace's environment, whatever the operator. A session is what the traces
that are left make up: its createdAt, counts, costs, tokens, tags, users, metadata and observations are theirs. Then all
filters but those on the environment are asked of the session. Its scores and comments are never cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tests.oracle import parts
from tests.oracle.columns import column_named
from tests.oracle.filters import passes
from tests.oracle.latest import latest
from tests.oracle.raw import World
from tests.oracle.spans import from_event, live_traces, metadata_of, span_rows
from tests.oracle.values import Filter, Item, Row, Table, listed

COLUMNS = listed(
    "id userIds countTraces sessionDuration inputCost outputCost totalCost totalTokens traceTags "
    "createdAt bookmarked public totalCount comments"
)


@dataclass(frozen=True)
class Session:
    """What belongs to one session; `members` are its traces or its events, each with its own instant."""

    id: str
    members: Sequence[Row]
    instants: Sequence[tuple[datetime, str]]
    trace_ids: frozenset[str]
    observations: Sequence[Row]
    metadata: Sequence[dict[str, str]]

    @property
    def environment(self) -> str | None:
        """That of the latest member, by instant and then id."""
        newest = max(range(len(self.members)), key=lambda index: self.instants[index])
        return self.members[newest]["environment"] or None


def sessions(world: World, project_id: str, cutoff: datetime, *, events: bool) -> Table:
    """The sessions whose earliest member is before the cutoff; all members count."""
    if events:
        return Table("sessions", COLUMNS, _items(world, project_id, cutoff, _of_events(world, project_id)))
    traces = [row for row in live_traces(world, project_id, events=False).values() if row["session_id"]]
    spans = parts.grouped(span_rows(world, project_id, events=False), lambda row: row["trace_id"])

    def regroup(filters: list[Filter]) -> tuple[tuple[Item, ...], list[Filter]]:
        cuts = [each for each in filters if _is_of_traces(each)]
        left = [row for row in traces if passes("sessions", _trace_item(row), cuts)]
        rest = [each for each in filters if column_named("sessions", each["column"]).id != "environment"]
        return _items(world, project_id, cutoff, _of_traces(left, spans)), rest

    asked = {
        "createdAt": tuple(row["timestamp"] for row in traces),
        "environment": tuple(row["environment"] for row in traces),
    }
    return Table("sessions", COLUMNS, regroup([])[0], regroup=regroup, asked=asked)


def _is_of_traces(each: Filter) -> bool:
    column = column_named("sessions", each["column"])
    lower = column.id == "createdAt" and each["operator"] in {">", ">="}
    return lower or column.id == "environment"


def _trace_item(trace: Row) -> Item:
    return Item(trace["id"], {}, {"createdAt": trace["timestamp"], "environment": trace["environment"]}, {})


def _items(world: World, project_id: str, cutoff: datetime, found: Sequence[Session]) -> tuple[Item, ...]:
    stored = {row["id"]: row for row in world.of("trace_sessions", project_id)}
    scores = parts.grouped(parts.shown_scores(world, project_id, cutoff), lambda row: row["session_id"])
    comments = parts.comments(world, project_id, "SESSION")
    return tuple(
        _item(world, session, stored.get(session.id), scores.get(session.id, []), comments.get(session.id, []))
        for session in found
        if min(session.instants)[0] < cutoff
    )


def _of_traces(traces: Sequence[Row], spans: Mapping[str, Sequence[Row]]) -> list[Session]:
    return [
        Session(
            session_id,
            rows,
            [(row["timestamp"], row["id"]) for row in rows],
            frozenset(row["id"] for row in rows),
            [span for row in rows for span in spans.get(row["id"], [])],
            [row["metadata"] for row in rows],
        )
        for session_id, rows in parts.grouped(traces, lambda row: row["session_id"]).items()
    ]


def _of_events(world: World, project_id: str) -> list[Session]:
    found = [row for row in latest(world, "events_full", project_id) if row["session_id"]]
    return [
        Session(
            session_id,
            rows,
            [(row["start_time"], row["span_id"]) for row in rows],
            frozenset(row["trace_id"] for row in rows),
            [from_event(row) for row in rows],
            [metadata_of(row) for row in rows],
        )
        for session_id, rows in parts.grouped(found, lambda row: row["session_id"]).items()
    ]


def _item(world: World, session: Session, stored: Row | None, scores: Sequence[Row], comments: Sequence[Row]) -> Item:
    usage = parts.added(row["usage_details"] for row in session.observations)
    cost = parts.added(row["cost_details"] for row in session.observations)
    around = parts.span(session.observations)
    cells = {
        "id": session.id,
        "userIds": _distinct([row["user_id"]] for row in session.members),
        "countTraces": len(session.trace_ids),
        "sessionDuration": _seconds_crossed(*around) if around else None,
        "inputCost": parts.containing_in_any_case(cost, "input") or Decimal(0),
        "outputCost": parts.containing_in_any_case(cost, "output") or Decimal(0),
        "totalCost": cost.get("total", Decimal(0)),
        "totalTokens": usage.get("total", 0),
        "traceTags": _distinct(row["tags"] for row in session.members),
        "createdAt": min(session.instants)[0],
        "bookmarked": bool(stored and stored["bookmarked"]),
        "public": bool(stored and stored["public"]),
        "totalCount": len(session.trace_ids),
        "comments": parts.comment_cell(world, comments),
    }
    facts = {
        **{name: cell for name, cell in cells.items() if name not in {"public", "totalCount", "comments"}},
        **parts.score_facts(parts.values_of(scores), categories=("CATEGORICAL",)),
        **parts.comment_facts(comments),
        "environment": session.environment,
        "inputTokens": parts.containing_in_any_case(usage, "input") or 0,
        "outputTokens": parts.containing_in_any_case(usage, "output") or 0,
        "usage": cells["totalTokens"],
        "tracesCount": cells["countTraces"],
        "metadata": session.metadata,
    }
    users = tuple(str(user) for user in _distinct([row["user_id"]] for row in session.members))
    return Item(session.id, cells, facts, {"id": (session.id, *users)})


def _distinct(lists: Iterable[Sequence[str | None]]) -> list[str]:
    """The distinct texts that are there and not empty, by code point."""
    return sorted({text for texts in lists for text in texts if text})


def _seconds_crossed(start: datetime, end: datetime) -> int:
    """How often the second changes between two instants, as ClickHouse's date_diff('second', ...) counts."""
    return (end.replace(microsecond=0) - start.replace(microsecond=0)) // timedelta(seconds=1)
