"""ClickHouse fails during a read: no incomplete file is ever visible, and the next attempt succeeds."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from cli import build
from config.settings import load
from config.tables import batch_exports
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from tests.services.stacks import Stack
from tests.support.barrier import Barrier
from tests.support.daemons import daemon, eventually
from tests.support.exports import outbox_rows, row_of, runs_of
from tests.support.http_proxy import Responder, http_proxy
from tests.support.responses import cut_at, end_at, hold
from tests.support.selection import reads_rows

pytestmark = pytest.mark.slow
ROWS = 700
FAR = 0.9
"""The share of the stream that passes: more than one part of the file, so that an upload is open."""

QUICK = {
    "WAYBILL_SWEEP_SECONDS": "0.5",
    "WAYBILL_HEARTBEAT_SECONDS": "0.5",
    "WAYBILL_RETRY_BASE_SECONDS": "0.2",
    "BATCH_EXPORT_S3_PART_SIZE_MIB": "5",
}
BROKEN = b"Code: 210. DB::Exception: I/O error: Broken pipe. (NETWORK_ERROR) (version 26.9.2.1)\n"
TAGGED = b"\r\n__exception__\r\nabcdefghijklmnop\r\n" + BROKEN + b"100 abcdefghijklmnop\r\n__exception__\r\n"
FAULTS = {
    "the connection is cut": cut_at(FAR),
    "the stream ends early": end_at(FAR),
    "an exception follows the rows": end_at(FAR, lambda: iter([BROKEN])),
    "a tagged exception follows the rows": end_at(FAR, lambda: iter([TAGGED])),
}


@pytest.fixture
def large_data(engine: Engine, stack: Stack) -> Engine:
    """The database and ClickHouse with enough rows for several parts."""
    with build.clickhouse_client(load(stack.environment())) as client:
        create_clickhouse_tables(client)
        fill(client, engine, rows=ROWS, projects=("demo",), payload_bytes=20_000)
    return engine


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_incomplete_stream_leaves_no_file_and_the_retry_succeeds(
    stack: Stack, large_data: Engine, tmp_path: Path, fault: Responder
) -> None:
    export_id, barrier = uuid.uuid4().hex, Barrier()
    row: dict[str, Any] = {
        "id": export_id,
        "project_id": "demo",
        "user_id": "",
        "name": "",
        "status": "QUEUED",
        "format": "JSONL",
    }
    row |= {"query": {"tableName": "traces", "filter": [], "orderBy": None}, "created_at": datetime.now(UTC)}

    with http_proxy(stack.environment()["CLICKHOUSE_URL"]) as clickhouse:
        failing = clickhouse.add(reads_rows, fault, times=1)
        clickhouse.add(lambda _: failing.done == 1, hold(barrier))
        environment = stack.environment() | QUICK | {"CLICKHOUSE_URL": clickhouse.url}
        with daemon("consumer", tmp_path, environment, wait=False):
            with large_data.begin() as connection:
                connection.execute(insert(batch_exports).values(row))
            barrier.wait_until_reached()
            first = runs_of(large_data, export_id)[0]
            assert (first["outcome"], first["error_class"]) == ("retry", "unavailable")
            assert (stack.objects(), stack.uploads(), outbox_rows(large_data)) == ({}, [], [])
            barrier.release()
            eventually(lambda: row_of(large_data, export_id)["status"] == "COMPLETED", what="the retry completes")

    assert [run["outcome"] for run in runs_of(large_data, export_id)] == ["retry", "completed"]
    key = min(stack.objects())
    lines = stack.read(key).decode().rstrip("\n").split("\n")
    assert len(lines) == len({line.split('"', 4)[3] for line in lines}) == ROWS
    assert stack.uploads() == []
