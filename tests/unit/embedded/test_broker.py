import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer

from embedded.stack import Stack

TEN_MEGABYTES = 10_000_000
LIMITS = {"message.max.bytes": 2 * TEN_MEGABYTES}
SESSION_SECONDS = 6
SECONDS = 30.0


def join(bootstrap: str, group: str, topic: str) -> Consumer:
    """Return a consumer that is assigned the whole topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_SECONDS * 1000,
            "enable.auto.commit": False,
            "receive.message.max.bytes": 3 * TEN_MEGABYTES,
            "fetch.max.bytes": 2 * TEN_MEGABYTES,
            **LIMITS,
        }
    )
    consumer.subscribe([topic])
    deadline = time.monotonic() + SECONDS
    while not consumer.assignment():
        assert time.monotonic() < deadline, "the group did not form"
        consumer.poll(0.1)
    return consumer


def create_topic(bootstrap: str) -> str:
    """Create a topic: a producer's metadata request creates it, a consumer's would not."""
    topic = f"topic-{uuid.uuid4().hex}"
    Producer({"bootstrap.servers": bootstrap}).list_topics(topic, timeout=SECONDS)
    return topic


def test_a_new_topic_has_four_partitions(embedded: Stack) -> None:
    topic = create_topic(embedded.kafka)
    producer = Producer({"bootstrap.servers": embedded.kafka})
    assert len(producer.list_topics(topic, timeout=SECONDS).topics[topic].partitions) == 4


@pytest.mark.slow
def test_a_message_of_ten_megabytes_is_delivered(embedded: Stack) -> None:
    topic = create_topic(embedded.kafka)
    payload = bytes(range(256)) * (TEN_MEGABYTES // 256)
    producer = Producer({"bootstrap.servers": embedded.kafka, **LIMITS})
    producer.produce(topic, payload, key=b"key", headers=[("why", b"\x00binary")])
    assert producer.flush(SECONDS) == 0
    consumer = join(embedded.kafka, f"group-{topic}", topic)
    deadline = time.monotonic() + SECONDS
    while (message := consumer.poll(0.1)) is None:
        assert time.monotonic() < deadline, "the message did not arrive"
    assert (message.key(), message.value(), message.headers()) == (b"key", payload, [("why", b"\x00binary")])
    consumer.close()


@pytest.mark.slow
def test_a_group_rebalances_within_its_session_timeout(embedded: Stack) -> None:
    topic = create_topic(embedded.kafka)
    join(embedded.kafka, f"group-{topic}", topic).close()
    began = time.monotonic()
    join(embedded.kafka, f"group-{topic}", topic).close()
    assert time.monotonic() - began < SESSION_SECONDS + 2
