"""Measures many small exports, requested at the same time, on one consumer: `python -m tests.bench.small`."""

import argparse
import statistics
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, select

from config.tables import batch_exports, runs
from tests.bench.installation import start_installation
from tests.support.daemons import daemon

EXPORTS = 1000


def main() -> None:
    """Measure with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.small", description=__doc__)
    parser.add_argument("--exports", type=int, default=EXPORTS)
    parser.add_argument("--rows", type=int, default=100, help="rows of each export")
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    report_small(Console(), options.exports, options.rows, options.slots)


def report_small(console: Console, exports: int = EXPORTS, rows: int = 100, slots: int = 8) -> None:
    """Publish all requests to one consumer, and print the times from publishing to COMPLETED."""
    settings = {"WAYBILL_SLOTS": str(slots), "WAYBILL_SWEEP_SECONDS": "600"}
    with start_installation(rows) as installation:
        with daemon("consumer", installation.folder, {**installation.environment, **settings}) as consumer:
            busy = consumer.metric("process_cpu_seconds_total")
            published = installation.request(0, exports)
            installation.wait(exports)
            busy = consumer.metric("process_cpu_seconds_total") - busy
            resident = consumer.metric("process_resident_memory_bytes")
        table = Table(title=f"{exports:,} small exports at the same time, {slots} slots, {installation.kind} services")
        for heading in ("exports/s", "p50 s", "p95 s", "p99 s", "one export s", "CPU s each", "attempts", "MiB"):
            table.add_column(heading, justify="right")
        seconds, attempts = _times(installation.engine, published)
        table.add_row(
            *(f"{each:.2f}" for each in seconds), f"{busy / exports:.3f}", attempts, f"{resident / 2**20:.0f}"
        )
    console.print(table)


def _times(engine: Engine, published: datetime) -> tuple[tuple[float, ...], str]:
    """Look up exports/s, p50, p95, p99 and the median of one export alone; and the number of attempts."""
    with engine.connect() as connection:
        ends = list(connection.scalars(select(batch_exports.c.finished_at)))
        spans = [row[1] - row[0] for row in connection.execute(select(runs.c.claimed_at, runs.c.finished_at))]
    waits = sorted((each - published).total_seconds() for each in ends)
    cuts = statistics.quantiles(waits, n=100)
    alone = statistics.median(span / timedelta(seconds=1) for span in spans)
    return (len(waits) / waits[-1], cuts[49], cuts[94], cuts[98], alone), f"{len(spans):,}"


if __name__ == "__main__":
    main()
