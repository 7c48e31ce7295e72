"""Runs one job, and prints its measurement as JSON."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url

from config.metrics import Metrics
from pipeline.export import export
from pipeline.memory import tune_allocators
from pipeline.progress import Progress
from pipeline.read import open_table
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import ExportSpec, read_spec
from pipeline.storage import S3Options, Storage, open_storage
from runtime.database import open_database
from tests.bench import by_server, row_by_row
from tests.bench.row_by_row import PROJECT


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure: `kind` is export, drain, server or rows; `server` is the process of ClickHouse, if its
    CPU is to be measured.

    `target` is an fsspec URL, `s3` the options of one that is S3.
    """

    kind: str
    format: str
    target: str
    clickhouse: str
    clickhouse_database: str = "default"
    server: int | None = None
    database: str
    s3: dict[str, Any]
    project: str = PROJECT
    table: str = "traces"
    events: bool = False


@dataclass(frozen=True)
class Measurement:
    """The measurement of a job: bytes of the file, or of the Arrow batches; the peak memory of the whole process.

    `cpu_seconds` are those of this process, `server_seconds` those of ClickHouse.
    """

    rows: int
    bytes: int
    seconds: float
    cpu_seconds: float
    server_seconds: float
    peak_bytes: int
    stages: dict[str, float]


def measured(job: Job) -> Measurement:
    """Run the job; only its own work is timed, not the imports."""
    metrics = Metrics(CollectorRegistry())
    tune_allocators()
    work = _prepare(job, metrics)
    began, busy, server_busy = time.perf_counter(), time.process_time(), read_busy(job.server)
    rows, size = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    server_seconds = read_busy(job.server) - server_busy
    stages = {
        sample.labels["stage"]: sample.value
        for metric in metrics.stage_seconds.metric.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    return Measurement(rows, size, seconds, cpu_seconds, server_seconds, _peak(), stages)


def _prepare(job: Job, metrics: Metrics) -> Callable[[], tuple[int, int]]:
    """Return the work to measure; it returns rows and bytes."""
    folder = Path(job.target.removeprefix("file://"))
    match job.kind:
        case "export":
            storage = open_storage(job.target, S3Options(**job.s3))
            storage.size("nothing")  # the first call imports the client of the store
            return partial(_export, job, storage, metrics)
        case "drain":
            return partial(_drain, job)
        case "server":
            return by_server.prepare(_spec(job), _sources(job), folder / f"server.{job.format.lower()}")
        case _:
            return partial(row_by_row.written, folder, job.format, job.clickhouse, job.database)


def read_busy(process: int | None) -> float:
    """Return the CPU seconds of a process; 0 for None."""
    if process is None:
        return 0.0
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def _spec(job: Job) -> ExportSpec:
    return read_spec(
        project_id=job.project,
        export_id="bench",
        attempt=1,
        created_at=datetime.now(UTC),
        query={"tableName": job.table, "filter": [], "orderBy": None, "useEventsTable": job.events},
        format=job.format,
    )


def _sources(job: Job) -> Sources:
    return Sources(
        ClickHouse(url=job.clickhouse, database=job.clickhouse_database), open_database(make_url(job.database))
    )


def _export(job: Job, storage: Storage, metrics: Metrics) -> tuple[int, int]:
    result = export(_spec(job), _sources(job), storage, Progress(), metrics, fence=lambda: None)
    return result.rows, result.bytes


def _drain(job: Job) -> tuple[int, int]:
    """Read the batches of the same query, and discard them."""
    rows = size = 0
    with open_table(_spec(job), _sources(job), Progress()) as table:
        for batch in table.batches:
            rows += batch.num_rows
            size += batch.nbytes
    return rows, size


def _peak() -> int:
    """Return this process's highest resident size; getrusage would include its parent's size before exec."""
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(asdict(measured(Job(**json.loads(sys.argv[1]))))), flush=True)
    # Do not wait for fsspec's loop thread.
    os._exit(0)
