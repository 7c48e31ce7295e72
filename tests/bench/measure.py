"""Runs jobs in processes of their own, and says what they took."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.runner import Job, Taken

PEAK_MIB = 300


@dataclass(frozen=True)
class Place:
    """Where files go to: an fsspec URL, and the options if it is S3."""

    name: str
    url: str
    s3: dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A filled ClickHouse, and how often each job is run; the best run counts, for the others were disturbed."""

    clickhouse: str
    database: str
    repeats: int

    def best(self, kind: str, form: str, place: Place, **of: Any) -> Taken:
        """Run a job in processes of its own; `of` says what it exports, if that is not all traces."""
        job = Job(
            kind=kind,
            format=form,
            target=place.url,
            clickhouse=self.clickhouse,
            database=self.database,
            s3=place.s3,
            **of,
        )
        return min((_run(job) for _ in range(self.repeats)), key=lambda taken: taken.seconds)


def figures(taken: Taken) -> tuple[str, str, str]:
    """Write rows/s, MB/s and peak MiB."""
    return (
        f"{rate(taken):,.0f}",
        f"{taken.bytes / taken.seconds / 1e6:,.0f}",
        f"{taken.peak_bytes / (1 << 20):,.0f}",
    )


def rate(taken: Taken) -> float:
    """Return rows/s."""
    return taken.rows / taken.seconds


def _run(job: Job) -> Taken:
    command = [sys.executable, "-m", "tests.bench.runner", json.dumps(asdict(job))]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Taken(**json.loads(answer.stdout))
