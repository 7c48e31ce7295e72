"""Runs jobs in separate processes, and returns their measurements."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.runner import Job, Measurement

PEAK_MIB = 300


@dataclass(frozen=True)
class Target:
    """Where files are written: an fsspec URL, and the options of S3."""

    name: str
    url: str
    s3: dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """A filled ClickHouse, and the number of runs of each job; the fastest counts, as the others were disturbed."""

    clickhouse: str
    database: str
    repeats: int

    def best(self, kind: str, form: str, target: Target, **of: Any) -> Measurement:
        """Run a job in separate processes; `of` says what it exports, if not all traces."""
        job = Job(
            kind=kind,
            format=form,
            target=target.url,
            clickhouse=self.clickhouse,
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


def rate(measurement: Measurement) -> float:
    """Return rows/s."""
    return measurement.rows / measurement.seconds


def _run(job: Job) -> Measurement:
    command = [sys.executable, "-m", "tests.bench.runner", json.dumps(asdict(job))]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Measurement(**json.loads(answer.stdout))
