"""Publishes what the outbox holds; an event counts as published when Kafka has confirmed it, not before."""

import logging
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from config.errors import Unavailable
from consumer.outbox import mark_published, unpublished
from runtime.publisher import Outgoing, Publisher
from runtime.tracing import headers_of

logger = logging.getLogger(__name__)

BATCH = 100


def relay(engine: Engine, publisher: Publisher, now: Callable[[], datetime]) -> int:
    """Publish all events that are waiting, oldest first, and return how many; raises Unavailable.

    Safe in many workers at once: an event may then be published twice, with the same event id.
    """
    published = 0
    more = True
    while more and (letters := unpublished(engine, limit=BATCH)):
        more = len(letters) == BATCH
        outgoing = [
            Outgoing(each.topic, each.key.encode(), each.payload.encode(), headers_of(each.traceparent))
            for each in letters
        ]
        answers = publisher.publish(outgoing)
        delivered = [letter.id for letter, error in zip(letters, answers, strict=True) if error is None]
        mark_published(engine, delivered, now())
        published += len(delivered)
        if errors := [error for error in answers if error is not None]:
            raise Unavailable(f"{len(errors)} events were not published: {errors[0].str()}")
    if published:
        logger.info("events published", extra={"events": published})
    return published
