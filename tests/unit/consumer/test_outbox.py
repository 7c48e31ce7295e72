from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine

from config.errors import Unavailable
from consumer import outbox
from consumer.outbox import relay
from tests.support.attempts import ScriptedWorker
from tests.support.exports import NOW, claimed, outbox_rows, queue
from tests.support.intake import FakePublisher


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> ScriptedWorker:
    return ScriptedWorker(engine, tmp_path / "files")


def test_an_outbox_is_full_when_the_limit_of_waiting_events_is_reached(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FULL", 2)
    full = []
    for name in "ab":
        full.append(outbox.is_full(worker.engine))
        queue(worker.engine, name)
        worker.jobs.reject(claimed(worker.jobs, export_id=name), "no", NOW)
    assert [*full, outbox.is_full(worker.engine)] == [False, False, True]
    outbox.mark_published(worker.engine, [outbox_rows(worker.engine)[0]["id"]], NOW)
    assert not outbox.is_full(worker.engine)


def test_the_relay_publishes_in_order_and_marks_what_was_delivered(worker: ScriptedWorker) -> None:
    for name in ("a", "b", "c"):
        queue(worker.engine, name)
        worker.jobs.reject(claimed(worker.jobs, export_id=name), "no", NOW)
    publisher = FakePublisher(answers=[None, KafkaError(KafkaError._MSG_TIMED_OUT), None])

    with pytest.raises(Unavailable, match="1 events were not published"):
        relay(worker.engine, publisher, worker.now, worker.metrics)  # type: ignore[arg-type] # stands in for Kafka
    assert [letter["published_at"] is None for letter in outbox_rows(worker.engine)] == [False, True, False]
    assert relay(worker.engine, publisher, worker.now, worker.metrics) == 1  # type: ignore[arg-type] # the same

    assert [message.key for message in publisher.sent] == [b"a", b"b", b"c", b"b"]
    assert {message.topic for message in publisher.sent} == {"export-completions"}
    assert all(letter["published_at"] == worker.time for letter in outbox_rows(worker.engine))
