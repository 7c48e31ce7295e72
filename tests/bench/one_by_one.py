"""Measures what one small export costs in the pipeline, one after the other: `python -m tests.bench.one_by_one`."""

import argparse
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console
from sqlalchemy import make_url

from config.metrics import Metrics
from embedded import stack
from pipeline.export import export
from pipeline.memory import tune_allocators
from pipeline.progress import Progress
from pipeline.read.connections import ClickHouse, Sources
from pipeline.spec import read_spec
from pipeline.storage import S3Options, open_storage
from runtime.database import open_database
from tests.bench.measure import Benchmark, fill_traces, find_server
from tests.bench.row_by_row import PROJECT
from tests.bench.runner import read_busy

ROWS, PAYLOAD = 100, 200
WARM = 8
"""Exports before the measured ones: they connect, and compile the statements."""


def main() -> None:
    """Export to files, and print milliseconds of CPU for one export, and the number of statements."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.one_by_one", description=__doc__)
    parser.add_argument("--exports", type=int, default=100)
    parser.add_argument("--format", default="CSV")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waybill-small-") as name, ExitStack() as running:
        folder = Path(name)
        parts = running.enter_context(stack.run_stack(folder / "parts"))
        bench = Benchmark(parts.clickhouse, find_server(), f"sqlite:///{folder}/bench.sqlite", 1)
        fill_traces(bench, ROWS, PAYLOAD)
        tune_allocators()
        _measure(bench, folder, options.format, options.exports)


def _measure(bench: Benchmark, folder: Path, form: str, exports: int) -> None:
    sent: list[str] = []
    source = ClickHouse(url=bench.clickhouse, on_statement=lambda sql, _values: sent.append(sql))
    sources = Sources(source, open_database(make_url(bench.database)))
    storage, metrics = open_storage(folder.as_uri(), S3Options()), Metrics(CollectorRegistry())

    def run(number: int) -> None:
        spec = read_spec(
            project_id=PROJECT,
            export_id=f"small-{number}",
            attempt=1,
            created_at=datetime.now(UTC),
            query={"tableName": "traces", "filter": [], "orderBy": None},
            format=form,
        )
        export(spec, sources, storage, Progress(), metrics, fence=lambda: None)

    for number in range(WARM):
        run(number)
    sent.clear()
    own, server, began = time.process_time(), read_busy(bench.server), time.perf_counter()
    for number in range(exports):
        run(WARM + number)
    taken = (time.process_time() - own, read_busy(bench.server) - server, time.perf_counter() - began)
    own_ms, server_ms, wall_ms = (f"{each * 1000 / exports:.1f} ms" for each in taken)
    Console().print(
        f"{form} of {ROWS} traces: {own_ms} of own CPU, {server_ms} of ClickHouse's, {wall_ms} in all, "
        f"{len(sent) / exports:g} statements"
    )


if __name__ == "__main__":
    main()
