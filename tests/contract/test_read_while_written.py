"""An export holds the rows of one moment, each once, while another process writes at full speed.

`ROUNDS=100 pytest tests/contract/test_read_while_written.py` exports each table that often.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.query import statements
from runtime.database import open_database
from tests.contract.concurrent_writer import START, Rounds, Target, state, writing_to_clickhouse, writing_to_database
from tests.services.stacks import Stack
from tests.support.databases import Databases, Read
from tests.support.tables import CLICKHOUSE_TABLES, DATABASE_TABLES

ROUNDS = int(os.environ.get("ROUNDS", "3"))

SPAN = {"trace_id": "t", "environment": "default", "level": "DEFAULT", "created_at": START, "updated_at": START}
TARGETS = {
    "traces": Target("traces", "timestamp", "name", {}),
    "sessions": Target("traces", "timestamp", "user_id", {}, owner="session_id"),
    "observations": Target("observations", "start_time", "name", SPAN, slot="type"),
    "events": Target("events_full", "start_time", "name", {**SPAN, "type": "SPAN"}, id="span_id"),
    "scores": Target(
        "scores",
        "timestamp",
        "comment",
        {"trace_id": "t", "value": 1.0, "data_type": "NUMERIC", "source": "API", "created_at": START},
        slot="name",
    ),
    "dataset_run_items": Target(
        "dataset_run_items_rmt",
        "created_at",
        "trace_id",
        {"dataset_item_id": "i", "dataset_id": "d"},
        slot="dataset_run_id",
    ),
}
SHOWN = {
    "sessions": "userIds",
    "scores": "comment",
    "dataset_run_items": "traceId",
    "audit_logs": "action",
    "dataset_items": "sourceTraceId",
}


def seen(read: Read, table: str) -> dict[str, str]:
    ids = read.ids()
    assert len(set(ids)) == len(ids), "a row is there twice"
    return {row["id"]: _only(row[SHOWN.get(table, "name")]) for row in read.rows}


def _only(value: str | list[str]) -> str:
    if isinstance(value, str):
        return value
    (one,) = value
    return one


def hold_one_moment(export: Callable[[], dict[str, str]], rounds: Rounds) -> None:
    overtaken = 0
    for _ in range(ROUNDS):
        earliest = rounds.done.value
        found = export()
        latest = rounds.begun.value
        moment = int(found["kept00"][1:])
        assert found == state(moment)
        assert earliest <= moment <= latest
        overtaken += latest > earliest
    assert overtaken, "nothing was written while anything was read"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("few_rows", [0, statements.FEW_ROWS])
@pytest.mark.parametrize("table", CLICKHOUSE_TABLES)
def test_rows_of_clickhouse_are_of_one_moment(
    stack: Stack, databases: Databases, table: str, few_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "FEW_ROWS", few_rows)
    environment = stack.databases()
    with writing_to_clickhouse(environment["CLICKHOUSE_URL"], environment["CLICKHOUSE_DB"], TARGETS[table]) as rounds:
        hold_one_moment(lambda: seen(databases.read(tableName=table), table), rounds)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("table", DATABASE_TABLES)
def test_rows_of_the_database_are_of_one_moment(databases: Databases, table: str) -> None:
    database = open_database(databases.engine.url)
    with database.connect():  # before the writer: SQLite then keeps readers and writers apart
        pass
    reader = replace(databases, sources=replace(databases.sources, database=database))
    with writing_to_database(databases.engine.url.render_as_string(hide_password=False), table) as rounds:
        hold_one_moment(lambda: seen(reader.read(tableName=table), table), rounds)
    database.dispose()
