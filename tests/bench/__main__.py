"""Measures exports against three baselines on this machine: `python -m tests.bench --rows 500000`."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
from rich.console import Console
from rich.table import Table

from embedded import stack
from pipeline.types import FORMATS
from tests import moto_server
from tests.bench.measure import Benchmark, Target, compare_cpu, costs, figures, fill_traces, find_server, rate
from tests.bench.more import report_names, report_tables
from tests.bench.small import EXPORTS, report_small
from tests.services import choice
from tests.services import s3 as s3_service
from tests.support.tables import READINGS

TABLES = tuple(f"{table}/events" if events else table for table, events in READINGS if table != "traces")
OF_THE_SERVER = 1.7
OF_THE_DRAIN = {"file": 0.85, "s3": 0.65}
PEAK_MIB = {"file": 250, "s3": 300}
WIDTH = 130


def main() -> None:
    """Fill the tables, run every job, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--payload", type=int, default=700, help="bytes of input and output in a row")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-s3", action="store_true")
    parser.add_argument("--tables", nargs="*", default=TABLES, choices=TABLES, help="tables besides traces")
    parser.add_argument("--names", nargs="*", type=int, default=(10, 200, 500, 1000), help="numbers of score names")
    parser.add_argument("--observations", type=int, default=0, help="the least number of observations")
    parser.add_argument("--small", type=int, default=EXPORTS, help="small exports at the same time; 0 for none")
    options = parser.parse_args()
    console = Console(width=max(Console().width, WIDTH))
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        parts = running.enter_context(stack.run_stack(folder / "parts"))
        bench = Benchmark(parts.clickhouse, find_server(), f"sqlite:///{folder}/bench.sqlite", options.repeats)
        began = time.perf_counter()
        fill_traces(bench, options.rows, options.payload)
        console.print(f"{options.rows:,} traces made in {time.perf_counter() - began:.0f} s")
        _copy_observations(bench, options.observations)
        files = Target("file", folder.as_uri(), {})
        targets = [files] if options.no_s3 else [files, running.enter_context(_s3(folder))]
        _report(bench, options.formats, targets, console)
        report_tables(bench, options.tables, files, console)
        report_names(bench, options.names, files, console)
    if options.small:
        report_small(console, options.small)


def _copy_observations(bench: Benchmark, count: int) -> None:
    """Copy the observations under other ids until there are enough."""
    with contextlib.closing(clickhouse_connect.get_client(dsn=bench.clickhouse)) as client:
        made = client.query("SELECT count() FROM observations FINAL WHERE is_deleted = 0").result_rows[0][0]
        for copy in range(1, -(-count // made)):
            client.command(
                f"INSERT INTO observations SELECT * REPLACE (concat(id, '/{copy}') AS id)"
                " FROM (SELECT * FROM observations WHERE position(id, '/') = 0)"
            )
        client.command("OPTIMIZE TABLE observations FINAL")


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[Target]:
    """Run the real server if it is installed, else moto."""
    with contextlib.ExitStack() as running:
        if choice.why_not("s3"):
            bucket, name = running.enter_context(moto_server.running()).bucket, "moto"
        else:
            server = running.enter_context(s3_service.start(folder / "s3"))
            bucket, name = running.enter_context(server.bucket()), "s3"
        client = bucket.options()
        options = {
            "endpoint": bucket.endpoint,
            "region": client["client_kwargs"]["region_name"],
            "access_key_id": client["key"],
            "secret_access_key": client["secret"],
            "force_path_style": True,
        }
        yield Target(name, f"s3://{bucket.name}", options)


def _report(bench: Benchmark, forms: list[str], targets: list[Target], console: Console) -> None:
    table = Table(title="Exports, and the three baselines")
    headings = ("rows/s", "MB/s", "peak MiB", "own µs", "server µs", "of the server", "of the drain", "of row by row")
    for heading in ("what", "to", *headings, "goals"):
        table.add_column(heading, justify="left" if heading in {"what", "to"} else "right")
    details = []
    for form in forms:
        drained = bench.best("drain", form, targets[0])
        plain = bench.best("rows", "JSONL" if FORMATS[form].nested else "CSV", targets[0])
        server = bench.best("server", form, targets[0])
        table.add_row(f"drain of {form}'s query", "-", *figures(drained), *costs(drained))
        table.add_row("row by row", "file", *figures(plain), *costs(plain))
        table.add_row("ClickHouse itself", "file", *figures(server), *costs(server))
        for target in targets:
            measurement = bench.best("export", form, target)
            of_drain, of_plain = (rate(measurement) / rate(other) for other in (drained, plain))
            of_server = compare_cpu(measurement, server)
            reached = (
                of_server <= OF_THE_SERVER,
                of_drain >= OF_THE_DRAIN[target.kind],
                measurement.peak_bytes >> 20 <= PEAK_MIB[target.kind],
            )
            ratios = (f"{of_server:.2f}", f"{of_drain:.2f}", f"{of_plain:.1f}")
            goals = " ".join("yes" if each else "NO" for each in reached)
            table.add_row(form, target.name, *figures(measurement), *costs(measurement), *ratios, goals)
            stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in measurement.stages.items())
            details.append(f"{form} to {target.name}: {measurement.seconds:.2f} s: {stages}")
        table.add_section()
    console.print(table)
    console.print(
        "The drain reads the same statement as Arrow and discards it. Row by row makes the same columns, scores and"
        " comments too, and the same JSON values with the standard library; it replaces no escapes and no formulas."
        " ClickHouse itself runs the same statement and writes the rows to a file; their peak is that of the client."
        " µs are CPU per row: of this process, and of ClickHouse."
    )
    console.print(
        "Of the server: CPU of both processes as a multiple of that of ClickHouse itself. Of the drain, of row by row:"
        " rows/s as a share or a multiple of theirs."
    )
    console.print(
        f"Goals, in this order: CPU of both at most {OF_THE_SERVER} times that of ClickHouse itself; rows/s at least"
        f" {OF_THE_DRAIN['file']} of the drain's to a file and {OF_THE_DRAIN['s3']} to S3; peak of at most"
        f" {PEAK_MIB['file']} MiB to a file and {PEAK_MIB['s3']} to S3. With few rows, fixed costs count."
    )
    console.print("Seconds in each stage:", *details, sep="\n  ")


if __name__ == "__main__":
    main()
