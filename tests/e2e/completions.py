"""Completion events of exports that have ended, their notices and emails, and a notifier."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from sqlalchemy import Engine, Row, insert, select

from config.events import ExportFinished, Status
from config.tables import batch_exports, notices, users
from tests.services.mail import Mail
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, daemon, eventually

QUICK = {"WAYBILL_RETRY_BASE_SECONDS": "0.2", "WAYBILL_SWEEP_SECONDS": "1", "WAYBILL_NOTICE_HOURS": "1"}


def add_ended_export(engine: Engine, **changes: Any) -> ExportFinished:
    """Add an ended export and its user, who is named after it; returns the completion event."""
    name, now = uuid.uuid4().hex[:12], datetime.now(UTC)
    export = {
        "id": f"export-{name}",
        "project_id": "project-1",
        "user_id": f"user-{name}",
        "name": "traces",
        "status": "COMPLETED",
        "query": {},
        "format": "CSV",
        "url": "https://files.example.com/traces.csv",
        "expires_at": now + timedelta(hours=24),
    }
    with engine.begin() as connection:
        connection.execute(insert(users).values(id=f"user-{name}", name="Ada", email=f"ada@{name}.test"))
        connection.execute(insert(batch_exports).values(export | changes))
    return ExportFinished(
        event_id=f"event-{name}",
        project_id="project-1",
        batch_export_id=f"export-{name}",
        attempt=1,
        status=Status(changes.get("status", "COMPLETED")),
        table_name="traces",
        format="CSV",
        rows=3,
        bytes=300,
        sha256="0" * 64,
        truncated=False,
        started_at=now,
        finished_at=now,
        expires_at=now + timedelta(hours=24),
        error=changes.get("log"),
    )


def publish(stack: Stack, *values: bytes) -> None:
    environment = stack.environment()
    producer = Producer({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"]})
    for value in values:
        producer.produce(environment["WAYBILL_COMPLETIONS_TOPIC"], value, key=b"key")
    assert producer.flush(20) == 0


def row(engine: Engine, event: ExportFinished) -> Row[Any] | None:
    with engine.connect() as connection:
        return connection.execute(select(notices).where(notices.c.event_id == event.event_id)).one_or_none()


def wait_until_ended(engine: Engine, event: ExportFinished) -> Row[Any]:
    """Wait until nothing more will happen to the notice."""

    def look() -> Row[Any] | None:
        found = row(engine, event)
        return found if found is not None and found.state in {"sent", "skipped", "failed"} else None

    return eventually(look, what=f"the notice of {event.event_id} ends")


def emails(stack: Stack, event: ExportFinished) -> list[Mail]:
    """The emails about this export, to the user who is named after it."""
    return [each for each in stack.mails() if event.batch_export_id.removeprefix("export-") in each.recipient]


@contextmanager
def notifier(stack: Stack, folder: Path, *, launcher: Sequence[str] | None = None, **changes: str) -> Iterator[Daemon]:
    with daemon("notify", folder, stack.environment() | QUICK | changes, launcher=launcher) as running:
        yield running
