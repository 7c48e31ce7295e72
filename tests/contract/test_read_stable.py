"""A file does not change with rows of another project, merges of the server, or a second read."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.oracle import load, worlds
from tests.oracle.columns import columns_of
from tests.oracle.pools import PROJECTS
from tests.oracle.raw import CLICKHOUSE_TABLES
from tests.services.stacks import Stack
from tests.support.agreement import Filled, cached_lookups, fill_databases
from tests.support.tables import READINGS

pytestmark = pytest.mark.slow
OURS, THEIRS = PROJECTS[:2]
SEED = 5
MARK = "of the other project"
WRITTEN_TOGETHER = frozenset({"id", "span_id", "trace_id", "event_ts", "project_id", "object_id", "dataset_id"})
ENUMS = frozenset({"object_type", "status", "data_type", "type", "level", "source", "action", "resource_type"})
Rows = list[dict[str, Any]]


def ours() -> dict[str, Rows]:
    return {
        table: [row for row in rows if row.get("project_id", OURS) in {OURS, None}]
        for table, rows in worlds.make(SEED).items()
    }


def theirs() -> dict[str, Rows]:
    """The same rows for the other project, newer and with other values; and its own prices for a global model."""
    copied = {
        table: [_theirs(row) for row in rows if row.get("project_id") == OURS]
        for table, rows in ours().items()
        if table not in {"models", "prices"}
    }
    price = {
        "id": "theirs",
        "model_id": "m-global",
        "project_id": THEIRS,
        "pricing_tier_id": "m-global-default",
        "usage_type": "input",
        "price": Decimal(666),
    }
    return {**copied, "prices": [price]}


def _theirs(row: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: _marked(name, value) for name, value in row.items()} | {"project_id": THEIRS}
    if "event_ts" in row:
        return changed | {"event_ts": row["event_ts"] + timedelta(days=1), "is_deleted": 0}
    # Ids of comments and audit logs are unique in the table, the others only in their project.
    return changed | {"id": row["id"].replace(OURS, THEIRS)}


def _marked(name: str, value: Any) -> Any:
    if name in WRITTEN_TOGETHER or name in ENUMS or name.endswith("_id"):
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{MARK} {value}"
    return [MARK, *value] if name == "tags" else value


def asked(table: str) -> list[dict[str, Any]]:
    """Filters that use other tables: scores, comments, traces and positions."""
    columns = columns_of(table)
    filters: dict[str, dict[str, Any]] = {
        "scores_avg": {"type": "numberObject", "key": "extreme", "operator": ">=", "value": 0},
        "trace_scores_avg": {"type": "numberObject", "key": "extreme", "operator": ">=", "value": 0},
        "agg_scores_avg": {"type": "numberObject", "key": "extreme", "operator": ">=", "value": 0},
        "commentCount": {"type": "number", "operator": "<=", "value": 1},
        "commentContent": {"type": "string", "operator": "does not contain", "value": "other project"},
        "traceName": {"type": "string", "operator": "does not contain", "value": "other project"},
        "latency": {"type": "number", "operator": ">=", "value": 0},
        "positionInTrace": {"type": "positionInTrace", "operator": "=", "key": "first"},
        "bookmarked": {"type": "boolean", "operator": "=", "value": True},
    }
    return [{"column": name, **each} for name, each in filters.items() if name in columns]


def queries(table: str, *, events: bool) -> list[dict[str, Any]]:
    plain = {"tableName": table, "filter": None, "orderBy": None, "useEventsTable": events}
    ties = next(name for name in ("environment", "status", "datasetId", "type", "userId") if name in columns_of(table))
    return [
        plain,
        {**plain, "orderBy": {"column": ties, "order": "DESC"}},
        *({**plain, "filter": [each]} for each in asked(table)),
    ]


@pytest.fixture
def rows(stack: Stack) -> Iterator[Filled]:
    with fill_databases(stack, ours()) as filled, cached_lookups():
        yield filled


def test_rows_of_another_project_with_the_same_ids_change_no_file(rows: Filled, stack: Stack) -> None:
    environment = stack.databases()
    every = [query for table, events in READINGS for query in queries(table, events=events)]
    alone = [rows.file(OURS, query, "JSONL") for query in every]

    load.fill(environment["CLICKHOUSE_URL"], environment["CLICKHOUSE_DB"], rows.databases.engine, theirs())

    for query, before in zip(every, alone, strict=True):
        assert rows.file(OURS, query, "JSONL") == before, query
    for table, events in READINGS:
        others = rows.file(THEIRS, {"tableName": table, "useEventsTable": events}, "JSONL")
        assert MARK.encode() in others or table == "dataset_run_items", table


def test_two_exports_have_the_same_bytes_before_and_after_merges(rows: Filled) -> None:
    every = [query for table, events in READINGS for query in queries(table, events=events)[:2]]
    first = [rows.file(OURS, query, "CSV") for query in every]
    again = [rows.file(OURS, query, "CSV") for query in every]

    for name in (*CLICKHOUSE_TABLES, "events_core"):
        rows.databases.client.command(f"OPTIMIZE TABLE {name} FINAL")

    assert first == again
    assert [rows.file(OURS, query, "CSV") for query in every] == first
