"""Keeps messages that can't be acted on: bytes untouched, with headers that say why; lists and replays them."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from config.errors import Unavailable
from config.settings import Settings
from runtime.kafka import client_config, message_headers
from runtime.publisher import Outgoing, Publisher

logger = logging.getLogger(__name__)

PREFIX = "waybill-"
POLL_SECONDS = 10.0
KEPT_BYTES = 64 * 1024
"""How much of a message is kept when the dead-letter topic takes no more; its length and sha256 are kept too."""

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A message as it came from a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message of the dead-letter topic: what came, where it lies now, and our headers by name."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    why: dict[str, str]


def received(event: Any) -> Received:
    """Read a message as Faust gives it."""
    message = event.message
    return Received(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=event.value,
        headers=message_headers(message),
    )


def bury(publisher: Publisher, topic: str, message: Received, *, verdict: str, reason: str, now: datetime) -> None:
    """Publish the message to the dead-letter topic; raises Unavailable when Kafka did not take it.

    A message that is too large for that topic is cut, and a header says how long it was.
    """
    why = {
        "reason": reason,
        "error-class": verdict,
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    error = _send(publisher, topic, message, message.value, why)
    if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE and message.value is not None:
        logger.warning("a message is too large for %s and is cut", topic, extra={"bytes": len(message.value)})
        why["cut-from-bytes"] = str(len(message.value))
        why["sha256"] = hashlib.sha256(message.value).hexdigest()
        error = _send(publisher, topic, message, message.value[:KEPT_BYTES], why)
    if error is not None:
        raise Unavailable(f"{topic} did not take a dead letter: {error.str()}")


def read_all(settings: Settings) -> Iterator[DeadLetter]:
    """Read the dead-letter topic from its start to where it ends now; raises Unavailable."""
    topic = settings.dead_letter_topic
    config = client_config(settings) | {"group.id": "waybill-dead-letters", "enable.auto.commit": False}
    consumer = Consumer(config | {"auto.offset.reset": "earliest"})
    try:
        partitions = consumer.list_topics(topic, timeout=POLL_SECONDS).topics[topic].partitions
        for number in sorted(partitions):
            yield from _read(consumer, TopicPartition(topic, number, OFFSET_BEGINNING))
    finally:
        consumer.close()


def replay(publisher: Publisher, letter: DeadLetter, topic: str) -> None:
    """Publish a dead letter again as it first came; raises Unavailable, and Unavailable too for one that was cut."""
    if "cut-from-bytes" in letter.why:
        raise Unavailable("this message was too large to be kept whole: send it anew")
    (error,) = publisher.publish([Outgoing(topic, letter.key, letter.value, letter.headers)])
    if error is not None:
        raise Unavailable(f"{topic} did not take the message: {error.str()}")


def _send(
    publisher: Publisher, topic: str, message: Received, value: bytes | None, why: dict[str, str]
) -> KafkaError | None:
    ours = tuple((PREFIX + name, text.encode()) for name, text in why.items())
    (error,) = publisher.publish([Outgoing(topic, message.key, value, message.headers + ours)])
    return error


def _read(consumer: Consumer, start: TopicPartition) -> Iterator[DeadLetter]:
    _, end = consumer.get_watermark_offsets(start, timeout=POLL_SECONDS)
    consumer.assign([start])
    position = 0
    while position < end:
        message = consumer.poll(POLL_SECONDS)
        if message is None:
            return  # the rest was deleted while it was read
        if (error := message.error()) is not None:
            raise Unavailable(f"{start.topic} can't be read: {error.str()}")
        position = (message.offset() or 0) + 1
        yield _letter(message)


def _letter(message: Message) -> DeadLetter:
    pairs = cast("list[tuple[str, object]]", message.headers() or [])
    headers = [(name, _bytes(value)) for name, value in pairs]
    why = {name.removeprefix(PREFIX): (value or b"").decode() for name, value in headers if name.startswith(PREFIX)}
    return DeadLetter(
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple(each for each in headers if not each[0].startswith(PREFIX)),
        why=why,
    )


def _bytes(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None
