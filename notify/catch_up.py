"""Finds completions that were published but never reached a notifier: Kafka is the doorbell, the outbox the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, select

from config.tables import outbox
from runtime.database import reading

DELIVERY_GRACE = timedelta(minutes=5)
"""How long Kafka may take to deliver a completion before it counts as lost."""

LOOK_BACK = timedelta(days=1)
LIMIT = 500


@dataclass(frozen=True)
class PublishedCompletion:
    """A completion event of the outbox."""

    outbox_id: int
    payload: bytes
    published_at: datetime
    traceparent: str | None


def find_published(engine: Engine, topic: str, *, since: datetime, now: datetime) -> Iterator[PublishedCompletion]:
    """Yield up to 500 completions published to `topic` after `since` and at least five minutes ago, oldest first.

    Raises Unavailable when the database fails.
    """
    wanted = (
        select(outbox.c.id, outbox.c.payload, outbox.c.published_at, outbox.c.traceparent)
        .where(outbox.c.topic == topic, outbox.c.published_at > since, outbox.c.published_at <= now - DELIVERY_GRACE)
        .order_by(outbox.c.published_at)
        .limit(LIMIT)
    )
    with reading(engine) as connection:
        rows = connection.execute(wanted).all()
    for outbox_id, payload, published_at, traceparent in rows:
        yield PublishedCompletion(outbox_id, _to_bytes(payload), published_at, traceparent)


def _to_bytes(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload
