"""Keeps the events that are to be published: written with the state change they tell of, relayed afterwards."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from config.events import ExportFinished
from config.tables import outbox
from consumer.store import changing, looking

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


def add(connection: Connection, topic: str, event: ExportFinished, now: datetime) -> None:
    """Write the event within the caller's transaction."""
    values = {"topic": topic, "key": event.batch_export_id, "payload": event.encode().decode(), "created_at": now}
    connection.execute(insert(outbox).values(values))


def unpublished(engine: Engine, *, limit: int) -> list[Letter]:
    """List events that Kafka has not confirmed, oldest first."""
    query = select(outbox.c.id, outbox.c.topic, outbox.c.key, outbox.c.payload)
    query = query.where(outbox.c.published_at.is_(None)).order_by(outbox.c.id).limit(limit)
    with looking(engine) as connection:
        return [Letter(*row) for row in connection.execute(query)]


def is_full(engine: Engine) -> bool:
    """Whether FULL events or more wait for Kafka."""
    waiting = select(outbox.c.id).where(outbox.c.published_at.is_(None)).limit(FULL).subquery()
    with looking(engine) as connection:
        return bool(connection.execute(select(func.count()).select_from(waiting)).scalar_one() >= FULL)


def prune(engine: Engine, *, before: datetime, limit: int) -> bool:
    """Delete events that were published earlier, `limit` at most; says whether there may be more."""
    old = select(outbox.c.id).where(outbox.c.published_at < before).limit(limit)
    with changing(engine) as connection:
        return connection.execute(delete(outbox).where(outbox.c.id.in_(old))).rowcount == limit


def mark_published(engine: Engine, ids: Collection[int], now: datetime) -> None:
    """Note that Kafka has confirmed these."""
    if not ids:
        return
    with changing(engine) as connection:
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(published_at=now))
