"""Measures a consumer's memory and CPU by slots, part size and format, and prints a Markdown table.

`python -m tests.bench.resources --rows 100000`: a real consumer process, on embedded parts and a real S3 server, runs
as many exports at the same time as it has slots. `--row-mib 32` adds a trace of this size, and measures two slots in
each format.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli import build
from config.settings import Settings, load
from consumer.models import NewExport
from embedded import stack
from embedded.sample import PROJECTS, fill
from embedded.schema import create_langfuse_schema
from pipeline.types import FORMATS
from runtime.migrations import migrate
from tests.services import s3
from tests.services.process import folder as services_folder
from tests.support.daemons import Daemon, daemon, eventually

SLOTS = (1, 2, 4, 8)
PARTS = (5, 10, 50)
PATIENCE = 1800.0
MESSAGE = ('{"role":"user","content":"' + "caf\\u00e9 " * 90 + '"},').ljust(1024)
LARGE_ROW = """
INSERT INTO traces (id, project_id, name, timestamp, input, event_ts, is_deleted)
SELECT 'large', {project:String}, 'large', '2025-01-15 00:00:00',
    concat('[', repeat({message:String}, {count:UInt32}), '{}]'), '2025-01-15 00:00:00', 0"""
"""One trace whose input is a JSON text with a KiB for each message, and with escapes, as Python's json writes them."""


@dataclass(frozen=True)
class Case:
    """One setting of a consumer, and the format of all its exports."""

    slots: int = 1
    part_mib: int = 10
    format: str = "CSV"


@dataclass(frozen=True)
class Measurement:
    """The measurement of a case: `idle` is the memory before the exports, `peak` the maximum; bytes."""

    idle: int
    peak: int
    rows: float
    cpu_seconds: float
    seconds: float

    def row(self, case: Case) -> str:
        """A row of the table."""
        million = self.rows / 1e6
        cells: tuple[object, ...] = (
            case.format,
            case.slots,
            case.part_mib,
            self.idle >> 20,
            self.peak >> 20,
            f"{self.cpu_seconds / million:.0f}",
            f"{self.rows / self.seconds:,.0f}",
        )
        return f"| {' | '.join(map(str, cells))} |"


HEADER = """\
| format | slots | part size, MiB | idle, MiB | peak, MiB | CPU seconds per million rows | rows per second |
|---|---:|---:|---:|---:|---:|---:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="traces in each export")
    parser.add_argument("--row-mib", type=int, default=0, help="size of one more trace, with two slots in each format")
    given = parser.parse_args()
    rows = given.rows
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="waybill-resources-")))
        parts = running.enter_context(stack.run_stack(folder / "stack"))
        server = running.enter_context(s3.start(running.enter_context(services_folder()) / "s3"))
        bucket = running.enter_context(server.bucket())
        environment = {**parts.environment(), **bucket.environment()}
        del environment["WAYBILL_STORAGE_URL"]
        _prepare(load(environment), rows, given.row_mib)
        print(
            f"{rows:,} traces in each export{f' and one of {given.row_mib} MiB' if given.row_mib else ''}, "
            f"{os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}\n\n{HEADER}",
            flush=True,
        )
        for case in wide_cases() if given.row_mib else cases():
            print(measured(case, environment, folder).row(case), flush=True)


def cases() -> Iterator[Case]:
    """Each of the three alone, and slots for the two formats that need the most and the least memory."""
    for form in FORMATS:
        yield Case(format=form)
    for part_mib in PARTS:
        yield Case(slots=2, part_mib=part_mib)
    for slots in SLOTS[1:]:
        yield Case(slots=slots, format="PARQUET")
        if slots > SLOTS[1]:
            yield Case(slots=slots)


def wide_cases() -> Iterator[Case]:
    """Each format, with a large row in both slots at the same time."""
    for form in FORMATS:
        yield Case(slots=2, format=form)


def measured(case: Case, environment: dict[str, str], folder: Path) -> Measurement:
    """Run a consumer that has as many exports as slots, all waiting when it starts."""
    settings = load(environment)
    place = folder / f"{case.slots}-{case.part_mib}-{case.format}"
    place.mkdir()
    changes = {
        "WAYBILL_SLOTS": str(case.slots),
        "BATCH_EXPORT_S3_PART_SIZE_MIB": str(case.part_mib),
        "WAYBILL_SWEEP_SECONDS": "0.5",
        "WAYBILL_LOG_LEVEL": "INFO",
    }
    with daemon("consumer", place, environment | changes) as consumer:
        idle, busy = _memory(consumer, "VmRSS"), consumer.metric("process_cpu_seconds_total")
        began = time.monotonic()
        jobs = build.jobs(settings)
        for _ in range(case.slots):
            query: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
            new = NewExport(project_id=PROJECTS[0], user_id="", name="An export", query=query, format=case.format)
            jobs.create(new, datetime.now(UTC))
        eventually(
            lambda: consumer.metric("waybill_exports_total", outcome="completed") == case.slots,
            seconds=PATIENCE,
            what=f"{case} to be done",
        )
        return Measurement(
            idle=idle,
            peak=_memory(consumer, "VmHWM"),
            rows=consumer.metric("waybill_rows_total"),
            cpu_seconds=consumer.metric("process_cpu_seconds_total") - busy,
            seconds=time.monotonic() - began,
        )


def _prepare(settings: Settings, rows: int, row_mib: int) -> None:
    engine = build.engine(settings)
    with build.clickhouse_client(settings) as client:
        create_langfuse_schema(client, engine)
        migrate(engine)
        fill(client, engine, rows=rows)
        if row_mib:
            # The statement adds less than a KiB, and the largest allowed row includes the other columns.
            parameters = {"project": PROJECTS[0], "message": MESSAGE, "count": (row_mib << 10) - 1}
            client.command(LARGE_ROW, parameters=parameters)


def _memory(consumer: Daemon, name: str) -> int:
    status = Path(f"/proc/{consumer.process.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    main()
