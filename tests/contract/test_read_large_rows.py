"""Wide rows are read in small batches, and a row that is too large to export is refused by its id."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from config.errors import Rejected
from pipeline.read.open_table import MOST_BATCH_BYTES, READ_BYTES
from pipeline.types import FORMATS
from tests.support.databases import MAY, Databases, Row

pytestmark = pytest.mark.clickhouse

KIB = 1 << 10
MIB = 1 << 20


def put_wide(
    databases: Databases, table: str, column: str, size: int, count: int = 1, *, name: str = "wide", at: str = MAY
) -> None:
    """Insert rows in which one column has this many bytes; the text is made by the server."""
    row_id = f"concat('{name} ', toString(number))"
    ids = ("span_id, trace_id", f"{row_id}, {row_id}") if table == "events_full" else ("id", row_id)
    time = "timestamp" if table in {"traces", "scores"} else "start_time"
    kind = ("data_type, ", "'NUMERIC', ") if table == "scores" else ("", "")
    databases.client.command(
        f"INSERT INTO {table} (project_id, {ids[0]}, name, {time}, {kind[0]}{column}, event_ts, is_deleted) "
        f"SELECT 'p', {ids[1]}, 'n', '{MAY}', {kind[1]}repeat(repeat('x', {KIB}), {size // KIB}), '{at}', 0 "
        f"FROM numbers({count})"
    )


def test_wide_rows_come_in_batches_of_limited_size(databases: Databases) -> None:
    put_wide(databases, "traces", "input", 2 * MIB, 24)
    sizes: list[int] = []

    databases.read_through(lambda batch: sizes.append(batch.nbytes))

    assert sum(sizes) > 48 * MIB
    assert max(sizes) <= READ_BYTES


def test_a_few_wide_rows_do_not_make_all_batches_small(databases: Databases) -> None:
    put_wide(databases, "traces", "input", 12 * MIB)
    databases.traces(*({"id": f"narrow {number:03}"} for number in range(300)))
    rows: list[int] = []

    databases.read_through(lambda batch: rows.append(batch.num_rows))

    assert sum(rows) == 301
    assert max(rows) >= 10


def test_rare_wide_rows_do_not_make_all_batches_small_even_if_they_do_not_fit_into_one(databases: Databases) -> None:
    put_wide(databases, "traces", "input", MIB // 2, 100)
    databases.client.command(
        "INSERT INTO traces (project_id, id, name, timestamp, event_ts, is_deleted) "
        f"SELECT 'p', concat('narrow ', toString(number)), 'n', '{MAY}', '{MAY}', 0 FROM numbers(4000)"
    )
    batches: list[tuple[int, int]] = []

    databases.read_through(lambda batch: batches.append((batch.num_rows, batch.nbytes)))

    assert sum(rows for rows, _ in batches) == 4100
    assert max(rows for rows, _ in batches) > READ_BYTES // (MIB // 2)
    assert max(size for _, size in batches) <= MOST_BATCH_BYTES


def test_a_few_rows_of_some_kib_do_not_make_batches_small(databases: Databases) -> None:
    put_wide(databases, "traces", "input", 64 * KIB, 20)
    put_wide(databases, "traces", "input", KIB, 4000, name="narrow")
    rows: list[int] = []

    databases.read_through(lambda batch: rows.append(batch.num_rows))

    assert sum(rows) == 4020
    assert max(rows) > MOST_BATCH_BYTES // (64 * KIB)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_memory_of_an_export_of_wide_rows_stays_below_the_rule(
    databases: Databases, tmp_path: Path, form: str
) -> None:
    row = 8
    put_wide(databases, "traces", "input", row * MIB, 32)
    clickhouse = databases.sources.clickhouse
    job = {
        "kind": "export",
        "format": form,
        "target": (tmp_path / "files").as_uri(),
        "clickhouse": clickhouse.url,
        "clickhouse_database": clickhouse.database,
        "database": databases.engine.url.render_as_string(hide_password=False),
        "s3": {},
        "project": "p",
    }

    run = [sys.executable, "-m", "tests.bench.runner", json.dumps(job)]
    measured = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)

    assert measured["rows"] == 32
    # The rule of docs/performance.md for one slot; without a bucket there are no parts.
    assert measured["peak_bytes"] < (250 + 65 + 12 * row) * MIB


@pytest.mark.parametrize(
    ("table", "source", "column"),
    [
        ("traces", "traces", "input"),
        ("traces", "events_full", "output"),
        ("observations", "observations", "output"),
        ("events", "events_full", "input"),
        ("scores", "scores", "comment"),
    ],
)
def test_a_row_that_is_too_large_is_refused_by_its_id_before_it_is_read(
    databases: Databases, table: str, source: str, column: str
) -> None:
    put_wide(databases, source, column, 33 * MIB)
    read: list[pa.RecordBatch] = []

    with pytest.raises(Rejected, match="ID 'wide 0' is too large: a row can have up to 32 MiB"):
        databases.read_through(read.append, tableName=table, useEventsTable=source == "events_full")

    assert read == []


def test_a_large_row_beyond_the_row_limit_does_no_harm(databases: Databases) -> None:
    put_wide(databases, "traces", "input", 33 * MIB)
    databases.traces({"id": "first"})

    found = databases.read(limit=1, orderBy={"column": "id", "order": "ASC"})

    assert (found.ids(), found.truncated) == (["first"], True)


def test_a_large_row_that_the_query_does_not_select_does_no_harm(databases: Databases) -> None:
    without: Row = {"type": "string", "column": "id", "operator": "does not contain", "value": "wide"}
    databases.traces({"id": "narrow"}, {"id": "updated 0"})
    put_wide(databases, "traces", "input", 33 * MIB)
    put_wide(databases, "traces", "input", 33 * MIB, name="updated", at="2026-05-09 12:00:00.000")

    assert sorted(databases.ids(without)) == ["narrow", "updated 0"]
