"""Measures small exports: many requests published at once to one consumer: `python -m tests.bench.small`."""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, func, insert, select

from cli.embedded import stack as embedded_parts
from cli.embedded.sample import fill
from cli.embedded.schema import create_application_schema
from config.database import open_database
from config.events import ExportRequested, Status
from config.migrations import migrate
from config.settings import load
from config.tables import batch_exports, runs
from tests.e2e.daemons import daemon
from tests.services import choice, kafka, postgres, process, s3, smtp
from tests.services.stacks import Embedded, Real, Servers, Stack

PATIENCE = 900.0
QUERY: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}


def main() -> None:
    """Start what is needed, publish the requests, and print what they took."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.small", description=__doc__)
    parser.add_argument("--exports", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100, help="rows of each export")
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    with process.folder() as folder, contextlib.ExitStack() as running:
        kind, servers = running.enter_context(_servers(folder))
        mine = running.enter_context(servers.stack(folder))
        engine = _prepared(mine, options.rows)
        slots = {"WAYBILL_SLOTS": str(options.slots), "WAYBILL_SWEEP_SECONDS": "600"}
        with daemon("consumer", folder, {**mine.environment(), **slots}) as consumer:
            published = _publish(mine, engine, options.exports)
            _wait(engine, options.exports)
            peak = consumer.metric("process_resident_memory_bytes")
        _report(kind, engine, published, options.slots, peak)
        engine.dispose()


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[tuple[str, Servers]]:
    """Run the real services where the machine has them, else the embedded parts; ClickHouse is the embedded one."""
    with contextlib.ExitStack() as running:
        parts = running.enter_context(embedded_parts.started(folder / "parts"))
        if "real" not in choice.kinds():
            yield "embedded", Embedded(parts)
            return
        yield (
            "real",
            Real(
                running.enter_context(kafka.start(folder / "kafka")),
                running.enter_context(postgres.start(folder / "postgres")),
                running.enter_context(s3.start(folder / "s3")),
                running.enter_context(smtp.start(folder / "smtp")),
                parts.clickhouse,
            ),
        )


def _prepared(mine: Stack, rows: int) -> Engine:
    settings = load(mine.environment())
    engine = open_database(settings.database)
    found = clickhouse_connect.get_client(dsn=settings.clickhouse_url, database=settings.clickhouse_db)
    with contextlib.closing(found) as client:
        create_application_schema(client, engine)
        fill(client, engine, rows=rows, projects=("demo",), payload_bytes=200)
    migrate(engine)
    return engine


def _publish(mine: Stack, engine: Engine, count: int) -> datetime:
    """Insert the rows, then publish all requests at once; the time is that of the first."""
    now = datetime.now(UTC)
    row = {"created_at": now, "updated_at": now, "project_id": "demo", "user_id": "", "name": "small"}
    row |= {"status": Status.QUEUED, "query": QUERY, "format": "CSV"}
    ids = [f"small-{number:05}" for number in range(count)]
    with engine.begin() as connection:
        connection.execute(insert(batch_exports), [row | {"id": each} for each in ids])
    settings = load(mine.environment())
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    published = datetime.now(UTC)
    for each in ids:
        event = ExportRequested(project_id="demo", batch_export_id=each)
        producer.produce(settings.requests_topic, event.encode(), key=each.encode())
    if producer.flush(60):
        raise TimeoutError("Kafka did not take the requests")
    return published


def _wait(engine: Engine, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    completed = select(func.count()).where(batch_exports.c.status == Status.COMPLETED)
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.scalar(completed) == count:
                return
        time.sleep(0.5)
    raise TimeoutError(f"not all exports were completed within {PATIENCE:g} s")


def _report(kind: str, engine: Engine, published: datetime, slots: int, peak: float) -> None:
    with engine.connect() as connection:
        ends = list(connection.scalars(select(batch_exports.c.finished_at)))
        spans = [row[1] - row[0] for row in connection.execute(select(runs.c.claimed_at, runs.c.finished_at))]
    waits = sorted((each - published).total_seconds() for each in ends)
    cuts = statistics.quantiles(waits, n=100)
    table = Table(title=f"{len(waits):,} small exports at once, {slots} slots, {kind} services")
    for heading in ("exports/s", "p50 s", "p95 s", "p99 s", "one export s", "attempts", "MiB"):
        table.add_column(heading, justify="right")
    each = statistics.median(span / timedelta(seconds=1) for span in spans)
    figures = (len(waits) / waits[-1], cuts[49], cuts[94], cuts[98], each)
    table.add_row(*(f"{figure:.2f}" for figure in figures), str(len(spans)), f"{peak / (1 << 20):.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
