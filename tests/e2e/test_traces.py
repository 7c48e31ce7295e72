"""The trace of a request continues through the consumer and the notifier."""

import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from sqlalchemy import insert

from config.settings import load
from config.tables import langfuse, users
from runtime.database import open_database
from runtime.migrations import migrate
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, daemon, eventually
from tests.support.exports import queue

pytestmark = pytest.mark.slow

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
QUICK = {"WAYBILL_SWEEP_SECONDS": "0.5", "WAYBILL_RETRY_BASE_SECONDS": "0.2"}
LAUNCHER = [sys.executable, "-m", "tests.e2e.scripted_consumer"]


def find_logged(daemon: Daemon, start: str) -> list[dict[str, Any]]:
    return [line for line in daemon.lines() if line["message"].startswith(start)]


def headers_of_the_completion(stack: Stack) -> dict[str, bytes]:
    settings = load(stack.environment())
    place = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    reader = Consumer({**place, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    reader.subscribe([settings.completions_topic])
    try:
        message = eventually(
            lambda: found if (found := reader.poll(0.1)) is not None and found.error() is None else None
        )
        return dict(message.headers() or [])  # type: ignore[arg-type] # header values are bytes
    finally:
        reader.close()


@pytest.mark.parametrize("script", ["quick", "fail-1"])
def test_the_trace_of_a_request_reaches_the_logs_the_completion_and_the_email(
    stack: Stack, tmp_path: Path, script: str
) -> None:
    settings = load(stack.environment())
    engine = open_database(settings.database)
    langfuse.create_all(engine)
    migrate(engine)
    export_id = f"{script}-{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(insert(users).values(id="user-1", name="Ada", email="ada@example.com"))
    environment = {**stack.environment(), **QUICK}
    with (
        daemon("consumer", tmp_path, environment | {"WAYBILL_SWEEP_SECONDS": "5"}, launcher=LAUNCHER) as consumer,
        daemon("notify", tmp_path, environment) as notifier,
    ):
        # Young, so that the event starts it: a sweep has no trace.
        queue(engine, export_id, created_at=datetime.now(UTC))
        engine.dispose()
        producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
        event = json.dumps({"projectId": "project-1", "batchExportId": export_id}).encode()
        producer.produce(settings.requests_topic, event, headers={"traceparent": TRACEPARENT})
        assert producer.flush(30) == 0

        headers = headers_of_the_completion(stack)
        (notified,) = eventually(lambda: find_logged(notifier, "notice sent"))
        ended = find_logged(consumer, "the attempt ended")

    assert headers["traceparent"] == TRACEPARENT
    assert {(line["trace_id"], line["project_id"], line["export_id"]) for line in ended} == {
        (TRACE, "project-1", export_id)
    }
    assert [line["attempt"] for line in ended] == list(range(1, len(ended) + 1))
    assert (notified["trace_id"], notified["export_id"]) == (TRACE, export_id)
