"""The outbox: events are written in the transaction of their state change, and the relay publishes them to Kafka."""

import logging
import re
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import KafkaError
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from config.errors import Unavailable
from config.events import LAST_ATTEMPT, ExportFinished, Status
from config.metrics import Metrics
from config.tables import outbox
from consumer.models import Claim, Job
from pipeline.ignored_keys import shorten_names
from pipeline.types import ExportResult
from runtime.database import reading, writing
from runtime.publisher import Outgoing, Publisher
from runtime.tracing import write_traceparent

logger = logging.getLogger(__name__)

FULL = 10_000
"""When this many events wait for Kafka, no export is claimed until some are published."""

MAX_TEXT = 4000
MAX_NAME = 512
"""The part of a table's or a format's name that an event carries; valid names are much shorter."""

RELAY_BATCH = 100
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
REFUSED = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_RECORD, KafkaError._INVALID_ARG}  # noqa: SLF001 (the library's public spelling)
)
"""Errors of a message that Kafka will never take."""

OF_TOPIC = REFUSED | {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 (the library's public spelling)
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 (the library's public spelling)
}
"""Errors of one topic, which say nothing about the events of other topics."""


@dataclass(frozen=True)
class OutboxMessage:
    """One event that is not published yet; `id` is its row's."""

    id: int
    topic: str
    key: bytes
    payload: bytes
    traceparent: str | None


def make_printable(text: str, limit: int = MAX_TEXT) -> str:
    """Make the text fit a text column: no NUL, no lone surrogates, at most `limit` characters."""
    return text.replace("\0", "").encode(errors="replace").decode()[:limit]


def _to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text  # SQLite stores bytes in any column


def add(connection: Connection, topic: str, event: ExportFinished, now: datetime, traceparent: str | None) -> None:
    """Write the event and its trace in the caller's transaction."""
    values = {"topic": topic, "key": event.batch_export_id, "payload": event.encode().decode(), "created_at": now}
    connection.execute(insert(outbox).values(values | {"traceparent": traceparent}))


def list_unpublished(engine: Engine, *, limit: int, after: int | None = None) -> list[OutboxMessage]:
    """List events that Kafka has not confirmed, oldest first, from the one behind the id `after`."""
    query = select(outbox.c.id, outbox.c.topic, outbox.c.key, outbox.c.payload, outbox.c.traceparent)
    query = query.where(outbox.c.published_at.is_(None)).order_by(outbox.c.id).limit(limit)
    if after is not None:
        query = query.where(outbox.c.id > after)
    with reading(engine) as connection:
        return [
            OutboxMessage(id_, str(topic), _to_bytes(key), _to_bytes(payload), traceparent)
            for id_, topic, key, payload, traceparent in connection.execute(query)
        ]


def is_full(engine: Engine) -> bool:
    """Return whether at least FULL events wait for Kafka."""
    waiting = select(outbox.c.id).where(outbox.c.published_at.is_(None)).limit(FULL).subquery()
    with reading(engine) as connection:
        return bool(connection.execute(select(func.count()).select_from(waiting)).scalar_one() >= FULL)


def prune(engine: Engine, *, before: datetime, limit: int) -> bool:
    """Delete up to `limit` events that were published earlier; returns whether there may be more."""
    old = select(outbox.c.id).where(outbox.c.published_at < before).limit(limit)
    with writing(engine) as connection:
        return connection.execute(delete(outbox).where(outbox.c.id.in_(old))).rowcount == limit


def mark_published(engine: Engine, ids: Collection[int], now: datetime) -> None:
    """Record that Kafka has confirmed these events."""
    if not ids:
        return
    with writing(engine) as connection:
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(published_at=now))


def completion_event(job: Job, attempt: int, status: Status, now: datetime) -> ExportFinished:
    """Make the event of an export's end, without figures; the same end always gets the same event id."""
    return make_completion(job.project_id, job.id, attempt, status, now, table=job.table, format_=job.format)


def completed_event(claim: Claim, result: ExportResult, *, expires_at: datetime, now: datetime) -> ExportFinished:
    """Make the event of a completed export, with its figures."""
    return completion_event(claim.job, claim.attempt, Status.COMPLETED, now).model_copy(
        update={
            "rows": result.rows,
            "bytes": result.bytes,
            "sha256": result.sha256,
            "truncated": result.truncated,
            "started_at": claim.claimed_at,
            "expires_at": expires_at,
            "ignored": shorten_names(result.ignored),
        }
    )


def make_completion(  # noqa: PLR0913 (the parts of an event)
    project_id: str, export_id: str, attempt: int, status: Status, now: datetime, *, table: str | None, format_: str
) -> ExportFinished:
    """Make the event from its parts; `table` and `format_` may be any text that a user stored."""
    end = f"waybill:{project_id}:{export_id}:{attempt}:{status}"
    return ExportFinished(
        event_id=str(uuid.uuid5(uuid.NAMESPACE_URL, end)),
        project_id=project_id,
        batch_export_id=export_id,
        attempt=min(max(attempt, 0), LAST_ATTEMPT),
        status=status,
        table_name=None if table is None else make_printable(table, MAX_NAME),
        format=make_printable(format_, MAX_NAME),
        rows=0,
        bytes=0,
        sha256=None,
        truncated=False,
        started_at=None,
        finished_at=now,
        expires_at=None,
        error=None,
    )


def relay(engine: Engine, publisher: Publisher, now: Callable[[], datetime], metrics: Metrics) -> int:
    """Publish all waiting events, oldest first, and return how many; raises Unavailable.

    Safe in many workers at the same time: an event may then be published twice, with the same event id. An event that
    Kafka refuses for good is logged, counted and marked as published; the notifier still finds it in the table.
    """
    published, waiting, last = 0, list[KafkaError](), None
    while messages := list_unpublished(engine, after=last, limit=RELAY_BATCH):
        last = messages[-1].id
        errors = _publish(publisher, messages)
        delivered = [each.id for each in messages if each.id not in errors]
        refused = [number for number, error in errors.items() if error.code() in REFUSED]
        for number in refused:
            logger.error("Kafka refuses an event for good: %s", errors[number].str(), extra={"outbox_id": number})
            metrics.outbox_refused.inc()
        mark_published(engine, delivered + refused, now())
        published += len(delivered)
        waiting += [error for number, error in errors.items() if number not in refused]
        if len(messages) < RELAY_BATCH:
            break
        if any(error.code() not in OF_TOPIC for error in waiting):
            break  # Kafka does not answer, so the next events would only wait, too
    if published:
        logger.info("published completion events", extra={"events": published})
    if waiting:
        raise Unavailable(f"{len(waiting)} events were not published: {waiting[0].str()}")
    return published


def _publish(publisher: Publisher, messages: Sequence[OutboxMessage]) -> dict[int, KafkaError]:
    """Publish the events, and return the errors by id."""
    invalid = {each.id: KafkaError(KafkaError.TOPIC_EXCEPTION) for each in messages if not TOPIC.fullmatch(each.topic)}
    sent = [each for each in messages if each.id not in invalid]
    answers = publisher.publish(
        [Outgoing(each.topic, each.key, each.payload, write_traceparent(each.traceparent)) for each in sent]
    )
    failed = {each.id: error for each, error in zip(sent, answers, strict=True) if error is not None}
    return invalid | failed
