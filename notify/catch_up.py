"""Finds completions that were published but never reached a notifier: Kafka is the doorbell, the outbox the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, select

from config.events import ExportFinished, read_finished
from config.tables import outbox
from runtime.database import reading

GRACE = timedelta(minutes=5)
"""How long a completion may be under way on Kafka before anybody looks for it."""

LOOK_BACK = timedelta(days=1)
LIMIT = 500


@dataclass(frozen=True)
class Published:
    """A completion as the outbox has it."""

    event: ExportFinished
    published_at: datetime
    traceparent: str | None


def published(engine: Engine, topic: str, *, since: datetime, now: datetime) -> Iterator[Published]:
    """Give what was published to `topic` after `since` and has had its grace, the oldest first, 500 at most."""
    wanted = (
        select(outbox.c.payload, outbox.c.published_at, outbox.c.traceparent)
        .where(outbox.c.topic == topic, outbox.c.published_at > since, outbox.c.published_at <= now - GRACE)
        .order_by(outbox.c.published_at)
        .limit(LIMIT)
    )
    with reading(engine) as connection:
        found = connection.execute(wanted).all()
    for payload, published_at, traceparent in found:
        yield Published(read_finished(payload.encode()), published_at, traceparent)
