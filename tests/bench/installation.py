"""Services with a few traces for benchmarks, and a way to request many small exports at the same time."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
from confluent_kafka import Producer
from sqlalchemy import Engine, func, insert, select

from config.events import ExportRequested, Status
from config.settings import load
from config.tables import batch_exports
from embedded import stack as embedded_parts
from embedded.sample import fill
from embedded.schema import create_langfuse_schema
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services import choice, kafka, postgres, process, s3, smtp
from tests.services.stacks import Embedded, Real, Servers, Stack

PATIENCE = 1800.0
PROJECT = "demo"
USER = "user-1"
"""A user with an email address."""

NO_USER = ""
QUERY: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}


@dataclass(frozen=True)
class Installation:
    """Services with data in them; `kind` is real or embedded."""

    kind: str
    folder: Path
    environment: dict[str, str]
    engine: Engine

    def request(self, first: int, count: int, user: str = NO_USER) -> datetime:
        """Insert exports numbered from `first`, then publish all their requests; returns the time of the first."""
        now = datetime.now(UTC)
        row = {"created_at": now, "updated_at": now, "project_id": PROJECT, "user_id": user, "name": "small"}
        row |= {"status": Status.QUEUED, "query": QUERY, "format": "CSV"}
        ids = [f"small-{number:06}" for number in range(first, first + count)]
        with self.engine.begin() as connection:
            connection.execute(insert(batch_exports), [row | {"id": each} for each in ids])
        settings = load(self.environment)
        producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
        published = datetime.now(UTC)
        for each in ids:
            event = ExportRequested(project_id=PROJECT, batch_export_id=each)
            producer.produce(settings.requests_topic, event.encode(), key=each.encode())
        if producer.flush(60):
            raise TimeoutError("Kafka did not take the requests")
        return published

    def wait(self, count: int) -> None:
        """Wait until this many exports are completed in total."""
        deadline = time.monotonic() + PATIENCE
        completed = select(func.count()).where(batch_exports.c.status == Status.COMPLETED)
        while time.monotonic() < deadline:
            with self.engine.connect() as connection:
                if connection.scalar(completed) == count:
                    return
            time.sleep(0.5)
        raise TimeoutError(f"not all exports were completed within {PATIENCE:g} s")


@contextlib.contextmanager
def start_installation(rows: int) -> Iterator[Installation]:
    """Start services, real ones if the machine has them, with this many traces in each export."""
    with process.folder() as folder, contextlib.ExitStack() as running:
        kind, servers = running.enter_context(_servers(folder))
        mine = running.enter_context(servers.stack(folder))
        engine = _prepared(mine, rows)
        running.callback(engine.dispose)
        yield Installation(kind, folder, mine.environment(), engine)


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[tuple[str, Servers]]:
    """Run the real services if the machine has them, else the embedded parts; ClickHouse is always embedded."""
    with contextlib.ExitStack() as running:
        parts = running.enter_context(embedded_parts.run_stack(folder / "parts"))
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
        create_langfuse_schema(client, engine)
        fill(client, engine, rows=rows, projects=(PROJECT,), payload_bytes=200)
    migrate(engine)
    return engine
