"""Measures every other table against its own drain, and traces with many names of scores."""

import contextlib
from collections.abc import Sequence

import clickhouse_connect
from rich.console import Console
from rich.table import Table

from tests.bench.measure import Benchmark, Target, costs, figures, rate
from tests.bench.row_by_row import PROJECT

OF_ITS_DRAIN = 0.75
PEAK_MIB = 300
NAMES_PEAK_MIB = 350
ROWS_WITH_NAMES = 200_000


def report_tables(bench: Benchmark, tables: Sequence[str], files: Target, console: Console) -> None:
    """Export each table as CSV and JSONL; `observations/events` is the table read from the events."""
    report = _report("Tables", "of its drain")
    for name in tables:
        table, _, events = name.partition("/")
        for form in ("CSV", "JSONL"):
            drained = bench.best("drain", form, files, table=table, events=bool(events))
            measurement = bench.best("export", form, files, table=table, events=bool(events))
            share = rate(measurement) / rate(drained)
            reached = share >= OF_ITS_DRAIN and measurement.peak_bytes >> 20 <= PEAK_MIB
            row = (*figures(measurement), *costs(measurement), f"{share:.2f}", "yes" if reached else "NO")
            report.add_row(f"{name} ({measurement.rows:,})", form, *row)
    if tables:
        console.print(report)


def report_names(bench: Benchmark, counts: Sequence[int], files: Target, console: Console) -> None:
    """Export the same traces with more and more names of scores; the baseline is the smallest number."""
    report = _report("Names of scores", "times slower")
    fewest: dict[str, float] = {}
    for count in counts:
        project = _fill(bench.clickhouse, count)
        for form in ("CSV", "JSONL", "PARQUET"):
            measurement = bench.best("export", form, files, project=project)
            slower = fewest.setdefault(form, rate(measurement)) / rate(measurement)
            reached = measurement.peak_bytes >> 20 <= NAMES_PEAK_MIB
            row = (*figures(measurement), *costs(measurement), f"{slower:.1f}", "yes" if reached else "NO")
            report.add_row(f"{count:,} names", form, *row)
    if counts:
        console.print(report)


def _fill(clickhouse: str, count: int) -> str:
    """Copy traces and their scores to a new project, where the scores have this many names."""
    project = f"{count} names"
    with contextlib.closing(clickhouse_connect.get_client(dsn=clickhouse)) as client:
        for table, name in (("traces", "name"), ("scores", f"concat('score ', toString(cityHash64(id) % {count}))")):
            client.command(
                f"INSERT INTO {table} SELECT * REPLACE ('{project}' AS project_id, {name} AS name) FROM"
                f" (SELECT * FROM {table} FINAL WHERE project_id = '{PROJECT}' LIMIT {ROWS_WITH_NAMES})"
            )
    return project


def _report(title: str, compared: str) -> Table:
    report = Table(title=title)
    for heading in ("what", "format", "rows/s", "MB/s", "peak MiB", "own µs", "server µs", compared, "goals"):
        report.add_column(heading, justify="left" if heading in {"what", "format"} else "right")
    return report
