from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from config.errors import Unavailable
from config.settings import load
from runtime.dead_letters import read_all
from runtime.kafka_clients import build_producer
from runtime.publisher import Outgoing, Publisher
from tests.services.stacks import Stack


def test_each_message_has_its_own_result(stack: Stack) -> None:
    settings = load(stack.environment())
    publisher = Publisher(lambda: build_producer(settings))
    topic = settings.dead_letter_topic

    answers = publisher.publish(
        [
            Outgoing(topic, b"k", b"one", (("waybill-reason", b"r"), ("other", None))),
            Outgoing(topic, b"k", b"x" * 20_000_000),
            Outgoing(topic, None, None),
        ]
    )

    assert [error.code() if error else None for error in answers] == [None, KafkaError.MSG_SIZE_TOO_LARGE, None]
    one, none = sorted(read_all(settings), key=lambda letter: letter.value is None)
    assert (one.key, one.value, one.headers, one.why) == (b"k", b"one", (("other", None),), {"reason": "r"})
    assert (none.key, none.value) == (None, None)


class Broken:
    """A producer that has had a fatal error."""

    def produce(self, *_: Any, on_delivery: Any, **__: Any) -> None:
        on_delivery(KafkaError(KafkaError._FATAL, "fenced", True), None)

    def flush(self, _: float) -> int:
        return 0


def test_a_producer_with_a_fatal_error_is_replaced(stack: Stack) -> None:
    settings = load(stack.environment())
    producers: list[Any] = [build_producer(settings), Broken()]
    publisher = Publisher(producers.pop)
    message = Outgoing(settings.dead_letter_topic, b"k", b"v")

    (error,) = publisher.publish([message])
    assert error is not None
    assert publisher.publish([message]) == [None]
    assert publisher.publish([message]) == [None]


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (Unavailable("there is no token"), KafkaError._AUTHENTICATION),
        (KafkaException(KafkaError(KafkaError._FAIL, "no memory")), KafkaError._FAIL),
    ],
)
def test_a_producer_that_can_not_be_built_is_the_error_of_each_message_and_tried_again(
    raised: Exception, code: int
) -> None:
    producers: list[Any] = [Broken(), raised]

    def build() -> Any:
        built = producers.pop()
        if isinstance(built, Exception):
            raise built
        return built

    publisher = Publisher(build)
    message = Outgoing("topic", b"k", b"v")

    answers = publisher.publish([message, message])
    again = publisher.publish([message])

    assert [error.code() for error in answers if error is not None] == [code, code]
    assert "no " in str(answers[0])
    assert [error.code() for error in again if error is not None] == [KafkaError._FATAL]
