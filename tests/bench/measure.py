"""Runs jobs in separate processes, and returns their measurements."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import clickhouse_connect
import psutil
from sqlalchemy import make_url

from embedded.sample import fill
from embedded.schema import create_langfuse_schema
from runtime.database import open_database
from tests.bench.row_by_row import PROJECT
from tests.bench.runner import Job, Measurement


@dataclass(frozen=True)
class Target:
    """Where files are written: an fsspec URL, and the options of S3."""

    name: str
    url: str
    s3: dict[str, Any]

    @property
    def kind(self) -> str:
        """What the files are written to: file or s3."""
        return "s3" if self.s3 else "file"


@dataclass(frozen=True)
class Benchmark:
    """A filled ClickHouse, its process, and the number of runs of each job.

    The fastest run counts, because the others were disturbed.
    """

    clickhouse: str
    server: int
    database: str
    repeats: int

    def best(self, kind: str, form: str, target: Target, **of: Any) -> Measurement:
        """Run a job in separate processes; `of` says what it exports, if not all traces."""
        job = Job(
            kind=kind,
            format=form,
            target=target.url,
            clickhouse=self.clickhouse,
            server=self.server,
            database=self.database,
            s3=target.s3,
            **of,
        )
        return min((_run(job) for _ in range(self.repeats)), key=lambda measurement: measurement.seconds)


def figures(measurement: Measurement) -> tuple[str, str, str]:
    """Write rows/s, MB/s and peak MiB."""
    return (
        f"{rate(measurement):,.0f}",
        f"{measurement.bytes / measurement.seconds / 1e6:,.0f}",
        f"{measurement.peak_bytes / (1 << 20):,.0f}",
    )


def fill_traces(bench: Benchmark, rows: int, payload: int) -> None:
    """Create Langfuse's tables with this many traces; each has `payload` bytes of input and output."""
    engine = open_database(make_url(bench.database))
    with closing(clickhouse_connect.get_client(dsn=bench.clickhouse)) as client:
        create_langfuse_schema(client, engine)
        fill(client, engine, rows=rows, projects=(PROJECT,), payload_bytes=payload)
        # As on a server that has run for some time; merges during a run would disturb it.
        client.command("OPTIMIZE TABLE traces FINAL")
        client.command("OPTIMIZE TABLE scores FINAL")


def find_server() -> int:
    """Return the process of the embedded ClickHouse that this process has started."""
    return next(each.pid for each in psutil.Process().children() if "embedded.clickhouse" in each.cmdline())


def costs(measurement: Measurement) -> tuple[str, str]:
    """Write the microseconds of CPU per row of this process and of ClickHouse."""
    per_row = (each * 1e6 / measurement.rows for each in (measurement.cpu_seconds, measurement.server_seconds))
    own, server = (f"{each:.1f}" for each in per_row)
    return own, server


def compare_cpu(measurement: Measurement, other: Measurement) -> float:
    """Return the CPU of both processes as a multiple of another measurement's."""
    mine, others = (each.cpu_seconds + each.server_seconds for each in (measurement, other))
    return mine / others


def rate(measurement: Measurement) -> float:
    """Return rows/s."""
    return measurement.rows / measurement.seconds


def _run(job: Job) -> Measurement:
    command = [sys.executable, "-m", "tests.bench.runner", json.dumps(asdict(job))]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Measurement(**json.loads(answer.stdout))
