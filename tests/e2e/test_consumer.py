"""The consumer as its users run it, with a pipeline that follows a script: events in, endings out."""

import hashlib
import json
import signal
import sys
import uuid
from collections.abc import Iterator
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
from consumer.dead_letters import DeadLetter, read_all
from runtime.database import open_database
from runtime.kafka import MESSAGE_BYTES
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
NOBODY_SWEEPS = "600"


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    opened = open_database(load(stack.environment()).database)
    langfuse.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


def consumer(stack: Stack, folder: Path, *, wait: bool = True, **changes: str) -> AbstractContextManager[Daemon]:
    return daemon("consumer", folder, {**stack.environment(), **QUICK, **changes}, wait=wait, launcher=LAUNCHER)


def new(engine: Engine, script: str, **values: Any) -> str:
    """Queue an export that does what `script` says; its id."""
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


def ends(engine: Engine, export_id: str, status: str = "COMPLETED") -> dict[str, Any]:
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

    return eventually(look, what=f"{count} dead outbox_rows")


def completions(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The first completions on their topic, read by a consumer of the test's own."""
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


def test_the_same_request_five_times_at_once_to_two_consumers_is_run_once(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = new(engine, "sleep-0.5")

    # In groups of their own, each of the two gets all five.
    def alone() -> AbstractContextManager[Daemon]:
        group = uuid.uuid4().hex
        return consumer(stack, tmp_path, WAYBILL_CONSUMER_GROUP=group, WAYBILL_SWEEP_SECONDS=NOBODY_SWEEPS)

    with alone() as one, alone() as two:
        publish(stack, event(export_id), times=5)
        row = ends(engine, export_id)
        (told,) = completions(stack, 1)
        eventually(lambda: sum(each.metric("waybill_requests_total") for each in (one, two)) == 10, what="10 answers")
        accepted = sum(each.metric("waybill_requests_total", verdict="accepted") for each in (one, two))
        completed = sum(each.metric("waybill_exports_total", outcome="completed") for each in (one, two))

    (run,) = runs_of(engine, export_id)
    files = [key for key in stack.objects() if not key.endswith(".manifest.json")]
    assert (accepted, completed, run["outcome"]) == (1, 1, "completed")
    assert len(files) == 1
    assert row["url"].startswith(("file://", "http"))
    assert told["sha256"] == run["sha256"] == hashlib.sha256(stack.read(files[0])).hexdigest()
    assert [letter["published_at"] is not None for letter in outbox_rows(engine)] == [True]


def test_two_consumers_of_one_group_share_the_partitions(
    stack: Stack, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "real" not in request.node.callspec.id:
        pytest.skip("the mock broker loses the second of two members that join at once")
    exports = [new(engine, "sleep-0.3") for _ in range(8)]
    with consumer(stack, tmp_path) as one, consumer(stack, tmp_path) as two:
        eventually(lambda: json.loads(one.get("/readyz")[1])["partitions"] < 4 and one.ready())
        publish(stack, *(event(export_id) for export_id in exports))
        for export_id in exports:
            ends(engine, export_id)
        assert two.process.poll() is None

    assert [len(runs_of(engine, export_id)) for export_id in exports] == [1] * 8


def test_malformed_messages_become_dead_letters_and_the_agent_goes_on(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = new(engine, "quick")
    bad = [b"not json", None, b"\xff\x00\xfe", b'{"projectId": "p"}', b'{"projectId": 1, "batchExportId": "x"}', b"[]"]
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NOBODY_SWEEPS) as daemon_:
        publish(stack, *bad, event(export_id))
        ends(engine, export_id)
        found = dead_letters(stack, len(bad))
        malformed = daemon_.metric("waybill_requests_total", verdict="malformed")

    by_value = {letter.value: letter for letter in found}
    assert set(by_value) == set(bad)
    assert malformed == len(bad)
    letter = by_value[b"not json"]
    assert (letter.key, letter.headers) == (b"key", (("trace", b"\x00\xff"),))
    assert letter.why["error-class"] == "malformed"
    assert letter.why["topic"] == load(stack.environment()).requests_topic
    assert set(letter.why) == {"reason", "error-class", "topic", "partition", "offset", "time"}
    assert "batchExportId" in by_value[b'{"projectId": "p"}'].why["reason"]


def test_a_message_of_ten_megabytes_does_not_stop_the_agent(
    stack: Stack, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The mock broker forgets what comes after a message that is larger than all it keeps, 5 MiB.
    size = 10_000_000 if "real" in request.node.callspec.id else 4_000_000
    export_id = new(engine, "quick")
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NOBODY_SWEEPS) as daemon_:
        publish(stack, b"x" * size)
        eventually(lambda: daemon_.metric("waybill_requests_total", verdict="malformed") == 1)
        publish(stack, event(export_id))
        ends(engine, export_id)
        (letter,) = dead_letters(stack, 1)

    assert (letter.value, letter.why["error-class"]) == (b"x" * size, "malformed")


def test_a_row_that_is_committed_after_its_event_is_found(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    with consumer(stack, tmp_path, WAYBILL_SWEEP_SECONDS=NOBODY_SWEEPS) as daemon_:
        publish(stack, event("late-1"), event("nowhere"), event("late-1", "another-project"))
        queue(engine, "late-1", created_at=datetime.now(UTC))
        ends(engine, "late-1")
        found = dead_letters(stack, 2)
        missing = daemon_.metric("waybill_requests_total", verdict="missing")

    assert {letter.value for letter in found} == {event("nowhere"), event("late-1", "another-project")}
    assert {letter.why["error-class"] for letter in found} == {"missing"}
    assert missing == 2


def test_nothing_runs_while_exports_are_disabled(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = new(engine, "quick")
    with consumer(stack, tmp_path, LANGFUSE_S3_BATCH_EXPORT_ENABLED="false"):
        publish(stack, event(export_id))
        (letter,) = dead_letters(stack, 1)

    assert letter.why["error-class"] == "disabled"
    assert "LANGFUSE_S3_BATCH_EXPORT_ENABLED" in letter.why["reason"]
    assert row_of(engine, export_id)["status"] == "QUEUED"


def test_failures_are_retried_rejections_are_not(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    flaky, broken, refused = new(engine, "fail-2"), new(engine, "bug"), new(engine, "reject")
    with consumer(stack, tmp_path) as daemon_:
        publish(stack, event(flaky), event(broken), event(refused))
        ends(engine, flaky)
        assert ends(engine, broken, "FAILED")["log"] == "An internal error occurred"
        assert ends(engine, refused, "FAILED")["log"] == "The column 'x' is unknown."
        told = completions(stack, 3)
        eventually(lambda: daemon_.metric("waybill_exports_running") == 0)
        counted = {
            outcome: daemon_.metric("waybill_exports_total", outcome=outcome)
            for outcome in ("completed", "retry", "failed", "rejected")
        }
        started = daemon_.metric("waybill_exports_started_total")
        failed = {
            reason: daemon_.metric("waybill_attempts_failed_total", reason=reason)
            for reason in ("unavailable", "bug", "rejected", "lost")
        }

    assert [run["outcome"] for run in runs_of(engine, flaky)] == ["retry", "retry", "completed"]
    assert [run["outcome"] for run in runs_of(engine, broken)] == ["retry", "retry", "failed"]
    assert [run["error"] for run in runs_of(engine, broken)] == ["LookupError: a bug"] * 3
    assert [run["outcome"] for run in runs_of(engine, refused)] == ["rejected"]
    assert counted == {"completed": 1, "retry": 4, "failed": 1, "rejected": 1}
    assert failed == {"unavailable": 2, "bug": 3, "rejected": 1, "lost": 0}
    assert started == sum(counted.values()) == 7
    assert {each["batchExportId"]: each["status"] for each in told} == {
        flaky: "COMPLETED",
        broken: "FAILED",
        refused: "FAILED",
    }


def test_events_and_rows_that_wait_for_a_slot_are_seen_as_lag_and_as_a_queue(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    topic = stack.environment()["WAYBILL_REQUESTS_TOPIC"]
    exports = [new(engine, "sleep-60"), *(new(engine, "quick") for _ in range(3))]
    with consumer(stack, tmp_path, WAYBILL_SLOTS="1") as daemon_:
        publish(stack, event(exports[0]))
        ends(engine, exports[0], "PROCESSING")
        publish(stack, *(event(each) for each in exports[1:]))
        eventually(lambda: daemon_.metric("waybill_kafka_lag", topic=topic) == 3, what="a lag of 3")
        eventually(lambda: daemon_.metric("waybill_exports_queued") == 3, what="3 wait")
        assert 0 < daemon_.metric("waybill_oldest_queued_seconds") < 60
        set_status(engine, "CANCELLED", exports[0])
        for each in exports[1:]:
            ends(engine, each)
        eventually(lambda: daemon_.metric("waybill_kafka_lag", topic=topic) == 0, what="no lag")
        eventually(lambda: daemon_.metric("waybill_exports_queued") == 0, what="nothing waits")


def test_a_cancelled_export_stops_within_a_heartbeat_and_leaves_nothing(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = new(engine, "sleep-60")
    with consumer(stack, tmp_path):
        publish(stack, event(export_id))
        ends(engine, export_id, "PROCESSING")
        eventually(lambda: runs_of(engine, export_id)[0]["rows"] == 1, what="a heartbeat")
        set_status(engine, "CANCELLED", export_id)
        eventually(lambda: runs_of(engine, export_id)[0]["outcome"] == "cancelled", seconds=5)

    assert row_of(engine, export_id)["status"] == "CANCELLED"
    assert (stack.objects(), stack.uploads(), outbox_rows(engine)) == ({}, [], [])


def test_sigterm_lets_short_exports_finish_and_gives_long_ones_to_others(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    with consumer(stack, tmp_path) as first:
        short, long = new(engine, "sleep-0.8"), new(engine, "sleep-8")
        publish(stack, event(short), event(long))
        ends(engine, short, "PROCESSING")
        ends(engine, long, "PROCESSING")
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(timeout=60) == 0
    assert row_of(engine, short)["status"] == "COMPLETED"
    assert row_of(engine, long)["status"] == "QUEUED"
    assert [run["outcome"] for run in runs_of(engine, long)] == ["released"]
    assert stack.uploads() == []

    with consumer(stack, tmp_path, wait=False, WAYBILL_SWEEP_SECONDS=NOBODY_SWEEPS):
        ends(engine, long)

    assert [run["outcome"] for run in runs_of(engine, long)] == ["released", "completed"]
    assert [run["failures"] for run in runs_of(engine, long)] == [0, 0]


def test_an_export_whose_worker_is_killed_is_taken_over(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = new(engine, "sleep-4")
    with consumer(stack, tmp_path, wait=False) as first:
        publish(stack, event(export_id))
        ends(engine, export_id, "PROCESSING")
        first.process.kill()
        first.process.wait()
    with consumer(stack, tmp_path, wait=False) as second:
        ends(engine, export_id)
        lost = second.metric("waybill_exports_total", outcome="lost")

    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "completed"]
    assert lost == 1
    assert stack.uploads() == []


def test_an_export_that_kills_its_workers_fails_in_the_end(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = new(engine, "sleep-60")
    for attempt in range(1, 4):
        with consumer(stack, tmp_path, wait=False, WAYBILL_LEASE_SECONDS="1") as victim:
            eventually(partial(_has_runs, engine, export_id, attempt))
            victim.process.kill()
            victim.process.wait()
    with consumer(stack, tmp_path, wait=False):
        row = ends(engine, export_id, "FAILED")

    assert row["log"] == "An internal error occurred"
    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "lost", "failed"]
    assert [json.loads(letter["payload"])["status"] for letter in outbox_rows(engine)] == ["FAILED"]


def test_a_row_without_an_event_is_taken_up(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = new(engine, "quick")
    with consumer(stack, tmp_path):
        ends(engine, export_id)


def test_a_zombie_that_wakes_up_changes_nothing(stack: Stack, engine: Engine, tmp_path: Path) -> None:
    export_id = new(engine, "sleep-2")
    with consumer(stack, tmp_path, wait=False) as sleeper:
        ends(engine, export_id, "PROCESSING")
        sleeper.process.send_signal(signal.SIGSTOP)
        with consumer(stack, tmp_path, wait=False):
            row = ends(engine, export_id)
            sleeper.process.send_signal(signal.SIGCONT)
            eventually(lambda: sleeper.metric("waybill_exports_running") == 0, what="the zombie gives up")
            assert row_of(engine, export_id) == row

    assert [run["outcome"] for run in runs_of(engine, export_id)] == ["lost", "completed"]
    assert [key for key in stack.objects() if key.endswith(".csv")] != []
    assert stack.read(next(key for key in stack.objects() if key.endswith(".csv"))) == b"attempt 2"


def test_an_event_that_was_never_published_is_when_somebody_rings_again(
    stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    export_id = new(engine, "quick")
    with consumer(stack, tmp_path, wait=False):
        ends(engine, export_id)
        eventually(lambda: all(letter["published_at"] for letter in outbox_rows(engine)))
    with engine.begin() as connection:
        connection.execute(update(outbox).values(published_at=None))
        assert connection.execute(select(runs.c.outcome)).scalar_one() == "completed"
        assert connection.execute(select(batch_exports.c.status)).scalar_one() == "COMPLETED"

    with consumer(stack, tmp_path, wait=False):
        eventually(lambda: all(letter["published_at"] for letter in outbox_rows(engine)))

    first, second = completions(stack, 2)
    assert first == second


def test_it_waits_for_what_is_missing_and_says_so(stack: Stack, tmp_path: Path) -> None:
    opened = open_database(load(stack.environment()).database)
    langfuse.create_all(opened)
    with consumer(stack, tmp_path, wait=False) as daemon_:
        status, body = daemon_.get("/readyz")
        assert status == 503
        assert "waybill migrate" in json.loads(body)["dependencies"]["database"]
        assert daemon_.get("/livez")[0] == 200
        eventually(lambda: any("waiting for database" in line["message"] for line in daemon_.lines()))
        migrate(opened)
        eventually(daemon_.ready)
    opened.dispose()
