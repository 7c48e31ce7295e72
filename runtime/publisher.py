"""Publishes messages to Kafka and reports the delivery of each."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from config.errors import Unavailable

FLUSH_SECONDS = 15.0
"""Longer than the producer's delivery timeout, so that every message has a result."""


@dataclass(frozen=True)
class Outgoing:
    """A message to publish, as bytes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Publisher:
    """Publishes messages with one producer; safe to use from any thread.

    `build` makes the producer when it is first needed, and a new one after a fatal error. It may raise Unavailable and
    KafkaException: then no message is published, and each has this error.
    """

    def __init__(self, build: Callable[[], Producer]) -> None:
        self._build = build
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Outgoing]) -> list[KafkaError | None]:
        """Publish in order and wait; each message has None when all replicas have it, else the error."""
        unanswered = KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001 (the library's public spelling)
        answers: list[KafkaError | None] = [unanswered] * len(messages)
        try:
            producer = self._open()
        except KafkaException as error:
            return [error.args[0]] * len(messages)
        except Unavailable as error:
            return [KafkaError(KafkaError._AUTHENTICATION, str(error))] * len(messages)  # noqa: SLF001 (the same)
        for number, message in enumerate(messages):

            def answer(error: KafkaError | None, _: Message, number: int = number) -> None:
                answers[number] = error

            try:
                producer.produce(
                    message.topic, message.value, message.key, headers=list(message.headers), on_delivery=answer
                )
            except KafkaException as error:
                answers[number] = error.args[0]
            except BufferError:
                producer.poll(0.1)
        producer.flush(FLUSH_SECONDS)
        if any(error is not None and error.fatal() for error in answers):
            self._drop(producer)
        return answers

    def _open(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = self._build()
            return self._producer

    def _drop(self, producer: Producer) -> None:
        with self._lock:
            if self._producer is producer:
                self._producer = None
