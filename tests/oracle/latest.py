"""Takes the latest version of each row: the highest event_ts of an identity; if that version is deleted, no row.

The versions of one identity may lie on different days, months, and, for observations, types. Two different versions
with one event_ts are outside the contract (nothing but the order of insertion could decide), and data that has them is
refused here.
"""

from collections.abc import Sequence

from tests.oracle.raw import World
from tests.oracle.values import Row

# An id of a run item belongs to one run of one dataset.
IDENTITY = {
    "traces": "id",
    "observations": "id",
    "scores": "id",
    "events_full": "span_id",
    "dataset_run_items_rmt": "id",
}


def latest(world: World, table: str, project_id: str) -> list[Row]:
    """The live rows of one project, ordered by identity."""
    versions: dict[str, list[Row]] = {}
    for row in world.of(table, project_id):
        versions.setdefault(row[IDENTITY[table]], []).append(row)
    winners = [_newest(table, identity, versions[identity]) for identity in sorted(versions)]
    return [row for row in winners if not row["is_deleted"]]


def _newest(table: str, identity: str, versions: Sequence[Row]) -> Row:
    first, *others = sorted(versions, key=lambda row: row["event_ts"], reverse=True)
    if others and others[0]["event_ts"] == first["event_ts"] and others[0] != first:
        raise ValueError(
            f"{table} {identity!r} has two versions of {first['event_ts']}: nobody can say which is latest"
        )
    return first
