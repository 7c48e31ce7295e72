"""Keeps the events that are to be published: written with the state change they tell of, relayed afterwards."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from config.events import ExportFinished, Status
from config.tables import outbox
from consumer.models import Job
from runtime.database import reading, writing

FULL = 10_000
"""So many events may wait for Kafka; then nothing new is claimed until some have gone."""

PRUNED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Letter:
    """One event on its way to Kafka."""

    id: int
    topic: str
    key: str
    payload: str
    traceparent: str | None


def add(connection: Connection, topic: str, event: ExportFinished, now: datetime, traceparent: str | None) -> None:
    """Write the event, and the trace that it belongs to, within the caller's transaction."""
    values = {"topic": topic, "key": event.batch_export_id, "payload": event.encode().decode(), "created_at": now}
    connection.execute(insert(outbox).values(values | {"traceparent": traceparent}))


def unpublished(engine: Engine, *, limit: int) -> list[Letter]:
    """List events that Kafka has not confirmed, oldest first."""
    query = select(outbox.c.id, outbox.c.topic, outbox.c.key, outbox.c.payload, outbox.c.traceparent)
    query = query.where(outbox.c.published_at.is_(None)).order_by(outbox.c.id).limit(limit)
    with reading(engine) as connection:
        return [Letter(*row) for row in connection.execute(query)]


def is_full(engine: Engine) -> bool:
    """Whether FULL events or more wait for Kafka."""
    waiting = select(outbox.c.id).where(outbox.c.published_at.is_(None)).limit(FULL).subquery()
    with reading(engine) as connection:
        return bool(connection.execute(select(func.count()).select_from(waiting)).scalar_one() >= FULL)


def prune(engine: Engine, *, before: datetime, limit: int) -> bool:
    """Delete events that were published earlier, `limit` at most; says whether there may be more."""
    old = select(outbox.c.id).where(outbox.c.published_at < before).limit(limit)
    with writing(engine) as connection:
        return connection.execute(delete(outbox).where(outbox.c.id.in_(old))).rowcount == limit


def mark_published(engine: Engine, ids: Collection[int], now: datetime) -> None:
    """Note that Kafka has confirmed these."""
    if not ids:
        return
    with writing(engine) as connection:
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(published_at=now))


def ending_of(job: Job, attempt: int, status: Status, now: datetime) -> ExportFinished:
    """Make the event that tells of an ending, with no figures yet; the same ending has the same event id."""
    ending = f"waybill:{job.project_id}:{job.id}:{attempt}:{status}"
    return ExportFinished(
        event_id=str(uuid.uuid5(uuid.NAMESPACE_URL, ending)),
        project_id=job.project_id,
        batch_export_id=job.id,
        attempt=attempt,
        status=status,
        table_name=job.table,
        format=job.format,
        rows=0,
        bytes=0,
        sha256=None,
        truncated=False,
        started_at=None,
        finished_at=now,
        expires_at=None,
        error=None,
    )
