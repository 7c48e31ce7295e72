"""The newest dead letters, as the operators' page shows them, on the embedded broker and on Apache Kafka."""

from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from config.errors import Unavailable
from config.labels import Verdict
from config.settings import load
from runtime.dead_letters import ReceivedMessage, dead_letter, read_all, read_latest
from runtime.kafka_clients import build_producer
from runtime.publisher import Publisher
from tests.services.process import free_port
from tests.services.stacks import Stack
from tests.support.exports import after


def test_the_newest_dead_letters_are_read_without_their_values_and_all_are_counted(stack: Stack) -> None:
    settings = load(stack.environment())
    publisher = Publisher(lambda: build_producer(settings))
    for number in range(12):
        message = ReceivedMessage(
            topic="export-requests",
            partition=0,
            offset=number,
            key=f"key-{number}".encode(),
            value=b"x" * 1000,
            headers=(),
        )
        topic = settings.dead_letter_topic
        dead_letter(publisher, topic, message, verdict=Verdict.MALFORMED, reason="why", now=after(number))

    found = read_latest(settings, 3)

    assert found.total == 12 == len(list(read_all(settings)))
    assert [(each.key, each.why["offset"], each.value) for each in found.latest] == [
        (b"key-11", "11", None), (b"key-10", "10", None), (b"key-9", "9", None),
    ]  # fmt: skip


def test_an_empty_topic_has_no_dead_letters(stack: Stack) -> None:
    found = read_latest(load(stack.environment()), 3)

    assert (found.total, found.latest) == (0, [])


def test_a_partition_without_a_leader_is_asked_again(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moving(Consumer):
        refusals = 2

        def get_watermark_offsets(self, *of: Any, **how: Any) -> Any:
            if self.refusals:
                self.refusals -= 1
                raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
            return super().get_watermark_offsets(*of, **how)

    monkeypatch.setattr("runtime.dead_letters.Consumer", Moving)

    assert read_latest(load(stack.environment()), 3).total == 0


def test_a_broker_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.dead_letters.POLL_SECONDS", 0.5)
    settings = load({"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})

    with pytest.raises(Unavailable, match="export-requests-dlq can't be read"):
        read_latest(settings, 3)
    with pytest.raises(Unavailable, match="export-requests-dlq can't be read"):
        list(read_all(settings))
