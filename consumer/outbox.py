"""Keeps the events that are to be published: written with the state change they tell of, relayed afterwards."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select, update

from config.events import ExportFinished
from config.tables import outbox
from consumer.store import changing, looking


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
    with looking(engine) as connection:
        return [Letter(*row) for row in connection.execute(query)]


def mark_published(engine: Engine, ids: Collection[int], now: datetime) -> None:
    """Note that Kafka has confirmed these."""
    if not ids:
        return
    with changing(engine) as connection:
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(published_at=now))
