"""The consumer with a scripted pipeline: request events in, outcomes out."""

import hashlib
import json
import signal
import sys
import uuid
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from sqlalchemy import Engine, select, update

from config.settings import load
from config.tables import batch_exports, langfuse, outbox, runs
from runtime.database import open_database
from runtime.dead_letters import DeadLetter, read_all
from runtime.kafka_clients import MESSAGE_BYTES
from runtime.migrations import migrate
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, daemon, eventually
from tests.support.exports import outbox_rows, queue, row_of, runs_of, set_status

QUICK = {
    "WAYBILL_SWEEP_SECONDS": "0.5",
    "WAYBILL_HEARTBEAT_SECONDS": "0.3",
    "WAYBILL_LEASE_SECONDS": "3",
    "WAYBILL_RETRY_BASE_SECONDS": "0.2",
    "WAYBILL_MAX_ATTEMPTS": "3",
    "WAYBILL_DRAIN_SECONDS": "1",
}
LAUNCHER = [sys.executable, "-m", "tests.e2e.scripted_consumer"]
NO_SWEEPS = "600"


def consumer(stack: Stack, folder: Path, *, wait: bool = True, **changes: str) -> AbstractContextManager[Daemon]:
    return daemon("consumer", folder, {**stack.environment(), **QUICK, **changes}, wait=wait, launcher=LAUNCHER)


def queue_export(engine: Engine, script: str, **values: Any) -> str:
    """Queue an export that does what `script` says; returns its id."""
    export_id = f"{script}-{uuid.uuid4().hex[:8]}"
    now = datetime.now(UTC)
    queue(engine, export_id, **({"created_at": now, "updated_at": now} | values))
    return export_id


def publish(stack: Stack, *values: bytes | None, times: int = 1) -> None:
    settings = load(stack.environment())
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "message.max.bytes": MESSAGE_BYTES})
    failed: list[str] = []
    for value in values * times:
        producer.produce(
            settings.requests_topic,
            value,
            key=b"key",
            headers={"trace": b"\x00\xff"},
            on_delivery=lambda error, _: failed.append(str(error)) if error else None,
        )
    assert producer.flush(30) == 0
    assert failed == []


def event(export_id: str, project_id: str = "project-1") -> bytes:
    return json.dumps({"projectId": project_id, "batchExportId": export_id, "unknown": 1}).encode()


def wait_for_status(engine: Engine, export_id: str, status: str = "COMPLETED") -> dict[str, Any]:
    return eventually(
        lambda: row if (row := row_of(engine, export_id))["status"] == status else None, what=f"{export_id} {status}"
    )


def _has_runs(engine: Engine, export_id: str, count: int) -> bool:
    return len(runs_of(engine, export_id)) == count


def dead_letters(stack: Stack, count: int) -> list[DeadLetter]:
    settings = load(stack.environment())

    def look() -> list[DeadLetter] | None:
        found = list(read_all(settings))
        return found if len(found) >= count else None

    return eventually(look, what=f"{count} dead letters")


def completions(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The first events on the topic of completions."""
    settings = load(stack.environment())
    reader = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
        }
    )
    reader.subscribe([settings.completions_topic])
    found: list[dict[str, Any]] = []

    def look() -> list[dict[str, Any]] | None:
        message = reader.poll(0.1)
        if message is not None and message.error() is None:
            value = message.value()
            assert isinstance(value, bytes)
            found.append(json.loads(value))
        return found if len(found) >= count else None

    try:
        return eventually(look, what=f"{count} completions")
    finally:
        reader.close()


@pytest.mark.slow
def test_a_request_published_five_times_to_two_consumers_runs_once(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = queue_export(engine, "sleep-0.5")

    # In separate groups, each of the two gets all five.
    def in_own_group() -> AbstractContextManager[Daemon]:
        group = uuid.uuid4().hex
        return consumer(stack, tmp_path, WAYBILL_CONSUMER_GROUP=group, WAYBILL_SWEEP_SECONDS=NO_SWEEPS)

    with in_own_group() as one, in_own_group() as two:
        publish(stack, event(export_id), times=5)
        row = wait_for_status(engine, export_id)
        (completion,) = completions(stack, 1)
        eventually(
            lambda: sum(each.metric("waybill_requests_total") for each in (one, two)) == 10, what="10 handled requests"
        )
        accepted = sum(each.metric("waybill_requests_total", verdict="accepted") for each in (one, two))
        completed = sum(each.metric("waybill_exports_total", outcome="completed") for each in (one, two))

    (run,) = runs_of(engine, export_id)
    files = [key for key in stack.objects() if not key.endswith(".manifest.json")]
    assert (accepted, completed, run["outcome"]) == (1, 1, "completed")
    assert len(files) == 1
    assert row["url"].startswith(("file://", "http"))
    assert completion["sha256"] == run["sha256"] == hashlib.sha256(stack.read(files[0])).hexdigest()
    assert [message["published_at"] is not None for message in outbox_rows(engine)] == [True]


@pytest.mark.slow
def test_two_consumers_of_one_group_share_the_partitions(
    stack: Stack, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "real" not in request.node.callspec.id:
        pytest.skip("the mock broker loses the second of two members that join at the same time")
    exports = [queue_export(engine, "sleep-0.3") for _ in range(8)]
    with consumer(stack, tmp_path) as one, consumer(stack, tmp_path) as two:
        eventually(lambda: json.loads(one.get("/readyz")[1])["partitions"] < 4 and one.ready())
        publish(stack, *(event(export_id) for export_id in exports))
        for export_id in exports:
            wait_for_status(engine, export_id)
        assert two.process.poll() is None

    assert [len(runs_of(engine, export_id)) for export_id in exports] == [1] * 8


@pytest.mark.slow
def test_malformed_messages_become_dead_letters_and_the_agent_continues(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = queue_export(engine, "quick")
    bad = [b"not json", None, b"\xff\x00\xfe", b'{"projectId": "p"}', b'{"projectId": 1, "batchExportId": "x"}', b"[]"]
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NO_SWEEPS) as running:
        publish(stack, *bad, event(export_id))
        wait_for_status(engine, export_id)
        found = dead_letters(stack, len(bad))
        malformed = running.metric("waybill_requests_total", verdict="malformed")

    by_value = {letter.value: letter for letter in found}
    assert set(by_value) == set(bad)
    assert malformed == len(bad)
    letter = by_value[b"not json"]
    assert (letter.key, letter.headers) == (b"key", (("trace", b"\x00\xff"),))
    assert letter.why["error-class"] == "malformed"
    assert letter.why["topic"] == load(stack.environment()).requests_topic
    assert set(letter.why) == {"reason", "error-class", "topic", "partition", "offset", "time"}
    assert "batchExportId" in by_value[b'{"projectId": "p"}'].why["reason"]


@pytest.mark.slow
def test_a_message_of_ten_megabytes_does_not_stop_the_agent(
    stack: Stack, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The mock broker forgets what comes after a message that is larger than all it keeps, 5 MiB.
    size = 10_000_000 if "real" in request.node.callspec.id else 4_000_000
    export_id = queue_export(engine, "quick")
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NO_SWEEPS) as running:
        publish(stack, b"x" * size)
        eventually(lambda: running.metric("waybill_requests_total", verdict="malformed") == 1)
        publish(stack, event(export_id))
        wait_for_status(engine, export_id)
        (letter,) = dead_letters(stack, 1)

    assert (letter.value, letter.why["error-class"]) == (b"x" * size, "malformed")


@pytest.mark.slow
def test_a_row_committed_after_its_event_is_found(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NO_SWEEPS) as running:
        publish(stack, event("late-1"), event("nowhere"), event("late-1", "another-project"))
        queue(engine, "late-1", created_at=datetime.now(UTC))
        wait_for_status(engine, "late-1")
        found = dead_letters(stack, 2)
        missing = running.metric("waybill_requests_total", verdict="missing")

    assert {letter.value for letter in found} == {event("nowhere"), event("late-1", "another-project")}
    assert {letter.why["error-class"] for letter in found} == {"missing"}
    assert missing == 2


@pytest.mark.slow
def test_no_export_runs_while_exports_are_disabled(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = queue_export(engine, "quick")
    with consumer(stack, tmp_path, LANGFUSE_S3_BATCH_EXPORT_ENABLED="false"):
        publish(stack, event(export_id))
        (letter,) = dead_letters(stack, 1)

    assert letter.why["error-class"] == "disabled"
    assert "LANGFUSE_S3_BATCH_EXPORT_ENABLED" in letter.why["reason"]
    assert row_of(engine, export_id)["status"] == "QUEUED"


@pytest.mark.slow
def test_failures_are_retried_but_rejections_are_not(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    flaky, broken, refused = queue_export(engine, "fail-2"), queue_export(engine, "bug"), queue_export(engine, "reject")
    with consumer(stack, tmp_path) as running:
        publish(stack, event(flaky), event(broken), event(refused))
        wait_for_status(engine, flaky)
        assert wait_for_status(engine, broken, "FAILED")["log"] == "An internal error occurred"
        assert wait_for_status(engine, refused, "FAILED")["log"] == "The column 'x' is unknown."
        found = completions(stack, 3)
        eventually(lambda: running.metric("waybill_exports_running") == 0)
        counted = {
            outcome: running.metric("waybill_exports_total", outcome=outcome)
            for outcome in ("completed", "retry", "failed", "rejected")
        }
        started = running.metric("waybill_exports_started_total")
        failed = {
            reason: running.metric("waybill_attempts_failed_total", reason=reason)
            for reason in ("unavailable", "bug", "rejected", "lost")
        }

    assert [run["outcome"] for run in runs_of(engine, flaky)] == ["retry", "retry", "completed"]
    assert [run["outcome"] for run in runs_of(engine, broken)] == ["retry", "retry", "failed"]
    assert [run["error"] for run in runs_of(engine, broken)] == ["LookupError: a bug"] * 3
    assert [run["outcome"] for run in runs_of(engine, refused)] == ["rejected"]
    assert counted == {"completed": 1, "retry": 4, "failed": 1, "rejected": 1}
    assert failed == {"unavailable": 2, "bug": 3, "rejected": 1, "lost": 0}
    assert started == sum(counted.values()) == 7
    assert {each["batchExportId"]: each["status"] for each in found} == {
        flaky: "COMPLETED",
        broken: "FAILED",
        refused: "FAILED",
    }


@pytest.mark.slow
def test_exports_that_wait_for_a_slot_show_as_lag_and_as_queued(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    topic = stack.environment()["WAYBILL_REQUESTS_TOPIC"]
    exports = [queue_export(engine, "sleep-60"), *(queue_export(engine, "quick") for _ in range(3))]
    with consumer(stack, tmp_path, WAYBILL_SLOTS="1") as running:
        publish(stack, event(exports[0]))
        wait_for_status(engine, exports[0], "PROCESSING")
        publish(stack, *(event(each) for each in exports[1:]))
        eventually(lambda: running.metric("waybill_kafka_lag", topic=topic) == 3, what="a lag of 3")
        eventually(lambda: running.metric("waybill_exports_queued") == 3, what="3 queued exports")
        assert 0 < running.metric("waybill_oldest_queued_seconds") < 60
        set_status(engine, "CANCELLED", exports[0])
        for each in exports[1:]:
            wait_for_status(engine, each)
        eventually(lambda: running.metric("waybill_kafka_lag", topic=topic) == 0, what="no lag")
        eventually(lambda: running.metric("waybill_exports_queued") == 0, what="no queued exports")


def test_a_cancelled_export_stops_within_a_heartbeat_and_leaves_no_files(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = queue_export(engine, "sleep-60")
    with consumer(stack, tmp_path):
        publish(stack, event(export_id))
        wait_for_status(engine, export_id, "PROCESSING")
        eventually(lambda: runs_of(engine, export_id)[0]["rows"] == 1, what="a heartbeat")
        set_status(engine, "CANCELLED", export_id)
        eventually(lambda: runs_of(engine, export_id)[0]["outcome"] == "cancelled", seconds=5)

    assert row_of(engine, export_id)["status"] == "CANCELLED"
    assert (stack.objects(), stack.uploads(), outbox_rows(engine)) == ({}, [], [])


@pytest.mark.slow
def test_sigterm_lets_short_exports_finish_and_releases_long_ones(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    with consumer(stack, tmp_path) as first:
        short, long = queue_export(engine, "sleep-0.8"), queue_export(engine, "sleep-8")
        publish(stack, event(short), event(long))
        wait_for_status(engine, short, "PROCESSING")
        wait_for_status(engine, long, "PROCESSING")
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(timeout=60) == 0
    assert row_of(engine, short)["status"] == "COMPLETED"
    assert row_of(engine, long)["status"] == "QUEUED"
    assert [run["outcome"] for run in runs_of(engine, long)] == ["released"]
    assert stack.uploads() == []

    with consumer(stack, tmp_path, wait=False, WAYBILL_SWEEP_SECONDS=NO_SWEEPS):
        wait_for_status(engine, long)

    assert [run["outcome"] for run in runs_of(engine, long)] == ["released", "completed"]
    assert [run["failures"] for run in runs_of(engine, long)] == [0, 0]


@pytest.mark.slow
def test_another_consumer_runs_the_export_of_a_killed_worker(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = queue_export(engine, "sleep-4")
    with consumer(stack, tmp_path, wait=False) as first:
        publish(stack, event(export_id))
        wait_for_status(engine, export_id, "PROCESSING")
        first.process.kill()
        first.process.wait()
    with consumer(stack, tmp_path, wait=False) as second:
        wait_for_status(engine, export_id)
        lost = second.metric("waybill_exports_total", outcome="lost")

    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "completed"]
    assert lost == 1
    assert stack.uploads() == []


@pytest.mark.slow
def test_an_export_that_kills_every_worker_fails_after_its_last_attempt(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = queue_export(engine, "sleep-60")
    for attempt in range(1, 4):
        with consumer(stack, tmp_path, wait=False, WAYBILL_LEASE_SECONDS="1") as killed:
            eventually(partial(_has_runs, engine, export_id, attempt))
            killed.process.kill()
            killed.process.wait()
    with consumer(stack, tmp_path, wait=False):
        row = wait_for_status(engine, export_id, "FAILED")

    assert row["log"] == "An internal error occurred"
    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "lost", "failed"]
    assert [json.loads(message["payload"])["status"] for message in outbox_rows(engine)] == ["FAILED"]


def test_a_row_without_an_event_is_exported(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = queue_export(engine, "quick")
    with consumer(stack, tmp_path):
        wait_for_status(engine, export_id)


@pytest.mark.slow
def test_a_suspended_worker_that_resumes_changes_nothing(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = queue_export(engine, "sleep-2")
    with consumer(stack, tmp_path, wait=False) as suspended:
        wait_for_status(engine, export_id, "PROCESSING")
        suspended.process.send_signal(signal.SIGSTOP)
        with consumer(stack, tmp_path, wait=False):
            row = wait_for_status(engine, export_id)
            suspended.process.send_signal(signal.SIGCONT)
            eventually(lambda: suspended.metric("waybill_exports_running") == 0, what="the suspended worker gives up")
            assert row_of(engine, export_id) == row

    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "completed"]
    assert [key for key in stack.objects() if key.endswith(".csv")] != []
    assert stack.read(next(key for key in stack.objects() if key.endswith(".csv"))) == b"attempt 2"


@pytest.mark.slow
def test_an_unpublished_completion_is_published_after_another_request(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = queue_export(engine, "quick")
    with consumer(stack, tmp_path, wait=False):
        wait_for_status(engine, export_id)
        eventually(lambda: all(message["published_at"] for message in outbox_rows(engine)))
    with engine.begin() as connection:
        connection.execute(update(outbox).values(published_at=None))
        assert connection.execute(select(runs.c.outcome)).scalar_one() == "completed"
        assert connection.execute(select(batch_exports.c.status)).scalar_one() == "COMPLETED"

    with consumer(stack, tmp_path, wait=False):
        eventually(lambda: all(message["published_at"] for message in outbox_rows(engine)))

    first, second = completions(stack, 2)
    assert first == second


@pytest.mark.slow
def test_a_consumer_waits_for_missing_tables_and_reports_them(stack: Stack, tmp_path: Path) -> None:
    opened = open_database(load(stack.environment()).database)
    langfuse.create_all(opened)
    with consumer(stack, tmp_path, wait=False) as running:
        status, body = running.get("/readyz")
        assert status == 503
        assert "waybill migrate" in json.loads(body)["dependencies"]["database"]
        assert running.get("/livez")[0] == 200
        eventually(lambda: any("waiting for database" in line["message"] for line in running.lines()))
        migrate(opened)
        eventually(running.ready)
    opened.dispose()
