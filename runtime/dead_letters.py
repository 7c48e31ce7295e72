"""Publishes messages that can't be handled to the dead-letter topic, unchanged but for headers; reads them back."""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from config.errors import Rejected, Unavailable
from config.settings import Settings
from runtime.kafka_clients import client_config
from runtime.kafka_records import Unreadable
from runtime.publisher import Outgoing, Publisher

logger = logging.getLogger(__name__)

PREFIX = "waybill-"
POLL_SECONDS = 10.0
LEADER_SECONDS = 0.2
NO_LEADER = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
PREFETCHED_KIB = 4096
"""A message may have 16 MiB, and a consumer that runs exports reads these messages, too."""

KEPT_BYTES = 64 * 1024
"""The part of a value that is kept when the message is too large for the topic; headers keep its size and sha256."""

KEPT_PREFIX = 1024
"""The part of value and key that is kept, without headers, when the message is still too large then."""

MOST_HEADERS = 10_000
"""A message with more headers loses them: librdkafka reads none of a message that has more than 100,000."""

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, kw_only=True)
class ReceivedMessage:
    """A message that was received from a topic; if it is `unreadable`, it may represent several."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    unreadable: Unreadable | None = None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message of the dead-letter topic: its place there, the original message, and our headers by name."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    why: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LatestDeadLetters:
    """How many messages the dead-letter topic has, and the newest of them without their values, newest first."""

    total: int
    latest: list[DeadLetter]


def read_message(event: Any) -> ReceivedMessage:
    """Convert Faust's event."""
    message = event.message
    value = event.value
    return ReceivedMessage(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=value,
        headers=_read_headers(message),
        unreadable=value if isinstance(value, Unreadable) else None,
    )


def dead_letter(
    publisher: Publisher, topic: str, message: ReceivedMessage, *, verdict: str, reason: str, now: datetime
) -> None:
    """Publish the message to the dead-letter topic; raises Unavailable when Kafka does not confirm it.

    A message that is too large for that topic is truncated, and headers give the size and the checksum of its value.
    Of an unreadable message, headers say which offsets it had and what the bytes are.
    """
    why = {
        "reason": reason,
        "error-class": verdict,
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    if (unreadable := message.unreadable) is not None:
        why |= {"offset": str(unreadable.first), "last-offset": str(message.offset), "content": unreadable.content}
    if len(message.headers) > MOST_HEADERS:
        logger.warning("a message has too many headers for %s and loses them", topic)
        message = replace(message, headers=())
    error = _send(publisher, topic, message, why)
    for shorter in _shorten(message):
        if error is None or error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            break
        logger.warning("a message is too large for %s and is truncated", topic, extra=_describe_size(message))
        value = message.value or b""
        cut = {"cut-from-bytes": str(len(value)), "sha256": hashlib.sha256(value).hexdigest()}
        error = _send(publisher, topic, shorter, why | cut)
    if error is not None:
        raise Unavailable(f"{topic} did not accept a dead letter: {error.str()}")


def read_all(settings: Settings) -> Iterator[DeadLetter]:
    """Read the dead-letter topic from its start to its current end; raises Unavailable."""
    with _opened(settings) as (consumer, partitions):
        for each in partitions:
            yield from _read(consumer, each)


def read_latest(settings: Settings, most: int) -> LatestDeadLetters:
    """Count the messages of the dead-letter topic, and read the newest without their values; raises Unavailable.

    From each partition, up to `most` messages are read.
    """
    with _opened(settings) as (consumer, partitions):
        ranges = {each.partition: _find_range(consumer, each) for each in partitions}
        starts = {number: max(first, end - most) for number, (first, end) in ranges.items() if end > first}
        consumer.assign([TopicPartition(settings.dead_letter_topic, *start) for start in starts.items()])
        unread = {number: ranges[number][1] for number in starts}
        found = []
        while unread and (message := _poll(consumer, settings.dead_letter_topic)) is not None:
            letter = replace(_to_dead_letter(message), value=None)
            found.append(letter)
            if letter.offset + 1 >= unread.get(letter.partition, 0):
                unread.pop(letter.partition, None)
    found.sort(key=lambda letter: letter.why.get("time", ""), reverse=True)
    return LatestDeadLetters(total=sum(end - first for first, end in ranges.values()), latest=found[:most])


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Consumer, list[TopicPartition]]]:
    """Give a consumer of the dead-letter topic, and the beginnings of its partitions.

    It writes nothing to stderr, where librdkafka would log each refused connection.
    """
    topic = settings.dead_letter_topic
    config = client_config(settings) | {"group.id": "waybill-dead-letters", "enable.auto.commit": False}
    config |= {"auto.offset.reset": "earliest", "queued.max.messages.kbytes": PREFETCHED_KIB, "log_level": 0}
    consumer = Consumer(config)
    try:
        partitions = consumer.list_topics(topic, timeout=POLL_SECONDS).topics[topic].partitions
        yield consumer, [TopicPartition(topic, number, OFFSET_BEGINNING) for number in sorted(partitions)]
    except KafkaException as error:
        raise Unavailable(f"{topic} can't be read: {error.args[0].str()}") from error
    finally:
        consumer.close()


def replay(publisher: Publisher, letter: DeadLetter, topic: str) -> None:
    """Publish the original message again; raises Unavailable, and Rejected if it was not kept whole."""
    if "cut-from-bytes" in letter.why:
        raise Rejected("this message was too large to be kept completely; publish the original again")
    if letter.why.get("content", "value") != "value":
        raise Rejected(f"this is not a message, but the bytes of a {letter.why['content']} that can't be decoded")
    (error,) = publisher.publish([Outgoing(topic, letter.key, letter.value, letter.headers)])
    if error is not None:
        raise Unavailable(f"{topic} did not accept the message: {error.str()}")


def _shorten(message: ReceivedMessage) -> Iterator[ReceivedMessage]:
    """Yield what to keep of a message that is too large: it may be its value, or its key and headers."""
    if message.value is not None:
        yield replace(message, value=message.value[:KEPT_BYTES])
    key, value = ((part if part is None else part[:KEPT_PREFIX]) for part in (message.key, message.value))
    yield replace(message, key=key, value=value, headers=())


def _describe_size(message: ReceivedMessage) -> dict[str, int]:
    sizes = {"value_bytes": len(message.value or b""), "key_bytes": len(message.key or b"")}
    return sizes | {"headers": len(message.headers)}


def _send(publisher: Publisher, topic: str, message: ReceivedMessage, why: dict[str, str]) -> KafkaError | None:
    ours = tuple((PREFIX + name, text.encode()) for name, text in why.items())
    (error,) = publisher.publish([Outgoing(topic, message.key, message.value, message.headers + ours)])
    return error


def _read(consumer: Consumer, start: TopicPartition) -> Iterator[DeadLetter]:
    _, end = _find_range(consumer, start)
    consumer.assign([start])
    position = 0
    while position < end:
        message = _poll(consumer, start.topic)
        if message is None:
            return  # the remaining messages were deleted meanwhile
        position = (message.offset() or 0) + 1
        yield _to_dead_letter(message)


def _poll(consumer: Consumer, topic: str) -> Message | None:
    message = consumer.poll(POLL_SECONDS)
    if message is not None and (error := message.error()) is not None:
        raise Unavailable(f"{topic} can't be read: {error.str()}")
    return message


def _find_range(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the offsets of the first message of a partition, and of the next one to be written.

    A partition that has no leader yet, as one of a new topic, is asked again.
    """
    deadline = time.monotonic() + POLL_SECONDS
    while True:
        try:
            first, end = consumer.get_watermark_offsets(partition, timeout=POLL_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER or time.monotonic() > deadline:
                raise
            time.sleep(LEADER_SECONDS)
        else:
            return first, end


def _to_dead_letter(message: Message) -> DeadLetter:
    pairs = cast("list[tuple[str, object]]", message.headers() or [])
    headers = [(name, _bytes(value)) for name, value in pairs]
    texts = [(name, (value or b"").decode(errors="backslashreplace")) for name, value in headers]
    why = {name.removeprefix(PREFIX): text for name, text in texts if name.startswith(PREFIX)}
    return DeadLetter(
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple(each for each in headers if not each[0].startswith(PREFIX)),
        why=why,
    )


def _read_headers(message: Any) -> Headers:
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
    return tuple((name, value) for name, value in headers)


def _bytes(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None
