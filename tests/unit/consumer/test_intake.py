import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine

from config.errors import Unavailable
from config.events import ExportRequested
from consumer.guards import GuardPolicy
from consumer.intake import Closed
from runtime.dead_letters import ReceivedMessage
from runtime.kafka_records import Unreadable
from runtime.retry import Backoff
from tests.support.exports import NOW, claimed, job_of, outbox_rows, queue, row_of, runs_of, set_status
from tests.support.intake import ScriptedIntake

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def message(value: bytes | None) -> ReceivedMessage:
    headers = (("trace", b"1"),)
    return ReceivedMessage(topic="requests", partition=3, offset=7, key=b"k", value=value, headers=headers)


def request(export_id: str = "export-1") -> ReceivedMessage:
    return message(ExportRequested(project_id="project-1", batch_export_id=export_id).encode())


def answer(engine: Engine, what: ReceivedMessage, **changes: Any) -> ScriptedIntake:
    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine, **changes)
        await asyncio.wait_for(scripted.intake.handle(what), 30)
        await scripted.slots.drain(30, 0)
        return scripted

    return asyncio.run(run())


def test_nothing_is_claimed_while_the_outbox_is_full(engine: Engine) -> None:
    queue(engine)

    async def run() -> None:
        scripted = ScriptedIntake(engine)
        scripted.intake.outbox_full.set()
        with pytest.raises(Unavailable, match="too many events wait"):
            await scripted.intake.start_without_event(job_of(scripted.jobs).key)
        assert (scripted.ran, scripted.slots.free) == ([], 1)
        scripted.intake.outbox_full.clear()
        await scripted.intake.start_without_event(job_of(scripted.jobs).key)
        await scripted.slots.drain(30, 0)
        assert [claim.job.id for claim in scripted.ran] == ["export-1"]

    asyncio.run(run())


def test_a_request_is_claimed_and_run(engine: Engine) -> None:
    queue(engine)

    scripted = answer(engine, request())

    assert [claim.job.id for claim in scripted.ran] == ["export-1"]
    assert (scripted.count("accepted"), scripted.publisher.sent) == (1, [])
    assert scripted.counted("waybill_exports_started_total", table="traces", format="CSV") == 1


def test_a_malformed_message_is_dead_lettered_unchanged(engine: Engine) -> None:
    scripted = answer(engine, message(b"\xff not json"))

    (sent,) = scripted.publisher.sent
    assert (sent.topic, sent.key, sent.value) == ("dlq", b"k", b"\xff not json")
    assert sent.headers[0] == ("trace", b"1")
    why = dict(sent.headers[1:])
    assert why["waybill-error-class"] == b"malformed"
    assert (why["waybill-topic"], why["waybill-partition"], why["waybill-offset"]) == (b"requests", b"3", b"7")
    assert why["waybill-time"] == b"2026-11-21T12:00:00.000Z"
    assert scripted.count("malformed") == scripted.counted("waybill_dead_letters_total", verdict="malformed") == 1


def test_a_message_that_is_too_large_is_truncated_with_a_header(engine: Engine) -> None:
    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        scripted.publisher.answers = [TOO_LARGE]
        await scripted.intake.handle(message(b"x" * 100_000))
        return scripted

    whole, cut = asyncio.run(run()).publisher.sent
    assert len(whole.value or b"") == 100_000
    assert len(cut.value or b"") == 65536
    assert dict(cut.headers)["waybill-cut-from-bytes"] == b"100000"


@pytest.mark.parametrize("value", [None, b"x" * 100_000])
def test_a_message_whose_key_and_headers_are_too_large_loses_them(engine: Engine, value: bytes | None) -> None:
    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        scripted.publisher.answers = [TOO_LARGE] if value is None else [TOO_LARGE] * 2
        large = replace(message(value), key=b"k" * 100_000, headers=(("h", b"v" * 100_000),))
        await asyncio.wait_for(scripted.intake.handle(large), 30)
        return scripted

    last = asyncio.run(run()).publisher.sent[-1]
    assert last.key == b"k" * 1024
    assert last.value == (None if value is None else b"x" * 1024)
    assert all(name.startswith("waybill-") for name, _ in last.headers)
    assert dict(last.headers)["waybill-cut-from-bytes"] == str(len(value or b"")).encode()
    assert dict(last.headers)["waybill-offset"] == b"7"


def test_a_message_with_more_headers_than_can_be_read_back_loses_them(engine: Engine) -> None:
    scripted = answer(engine, replace(message(b"bad"), headers=(("h", b""),) * 100_000))

    (sent,) = scripted.publisher.sent
    assert (sent.key, sent.value) == (b"k", b"bad")
    assert all(name.startswith("waybill-") for name, _ in sent.headers)


def test_a_dead_letter_that_kafka_does_not_confirm_is_published_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.intake.BACKOFF", Backoff(first=0.01))

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        scripted.publisher.answers = [KafkaError(KafkaError._ALL_BROKERS_DOWN)] * 2
        await scripted.intake.handle(message(b"bad"))
        return scripted

    scripted = asyncio.run(run())
    assert (len(scripted.publisher.sent), scripted.count("malformed")) == (3, 1)


def test_a_missing_row_is_looked_for_again_and_then_dead_lettered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.intake.LOOK_AGAIN_SECONDS", (0.01, 0.01))

    scripted = answer(engine, request("nowhere"))

    assert (len(scripted.publisher.sent), scripted.count("missing")) == (1, 1)


def test_a_missing_row_does_not_delay_other_requests(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.LOOK_AGAIN_SECONDS", (0.01, 3600))
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        rest = await asyncio.wait_for(scripted.intake.begin(request("nowhere")), 30)
        assert rest is not None
        looking = asyncio.create_task(rest())
        assert await asyncio.wait_for(scripted.intake.begin(request()), 30) is None
        assert not looking.done()
        looking.cancel()
        await scripted.slots.drain(30, 0)
        return scripted

    scripted = asyncio.run(run())
    assert [claim.job.id for claim in scripted.ran] == ["export-1"]
    assert (scripted.count("missing"), scripted.publisher.sent) == (0, [])


def test_an_unreadable_message_is_dead_lettered_with_its_offsets(engine: Engine) -> None:
    value = Unreadable(b"\xff\x00", reason="the checksum of the batch is wrong", first=5, content="batch")
    unreadable = ReceivedMessage(
        topic="requests", partition=3, offset=7, key=None, value=value, headers=(), unreadable=value
    )

    scripted = answer(engine, unreadable)

    (sent,) = scripted.publisher.sent
    why = dict(sent.headers)
    assert (sent.key, sent.value, why["waybill-content"]) == (None, b"\xff\x00", b"batch")
    assert (why["waybill-offset"], why["waybill-last-offset"]) == (b"5", b"7")
    assert (why["waybill-error-class"], why["waybill-reason"]) == (
        b"unreadable",
        b"the checksum of the batch is wrong",
    )
    assert scripted.count("unreadable") == scripted.counted("waybill_dead_letters_total", verdict="unreadable") == 1
    assert scripted.counted("waybill_unreadable_records_total", topic="requests") == 1


def test_a_disabled_consumer_dead_letters_requests_and_changes_nothing(engine: Engine) -> None:
    queue(engine)

    scripted = answer(
        engine, request(), policy=GuardPolicy(enabled=False, stale_after=timedelta(days=30), max_attempts=3)
    )

    assert (len(scripted.publisher.sent), scripted.count("disabled"), row_of(engine)["status"]) == (1, 1, "QUEUED")


def test_a_stale_export_fails_with_a_completion_event(engine: Engine) -> None:
    queue(engine, created_at=NOW - timedelta(days=31))

    scripted = answer(engine, request())

    assert (row_of(engine)["status"], len(outbox_rows(engine)), scripted.ran) == ("FAILED", 1, [])
    assert scripted.count("stale") == 1
    assert scripted.counted("waybill_exports_total", outcome="failed", table="traces", format="CSV") == 1
    assert scripted.counted("waybill_attempts_failed_total", reason="stale") == 1


def test_an_export_whose_row_cannot_be_read_fails_and_is_counted(engine: Engine) -> None:
    queue(engine, query={"tableName": "traces", "filter": json.loads("[" * 200 + "]" * 200)})

    scripted = answer(engine, request())

    assert (row_of(engine)["status"], len(outbox_rows(engine)), scripted.ran) == ("FAILED", 1, [])
    assert scripted.counted("waybill_attempts_failed_total", reason="unreadable") == 1


@pytest.mark.parametrize("status", ["CANCELLED", "COMPLETED", "FAILED"])
def test_an_ended_export_is_skipped(engine: Engine, status: str) -> None:
    queue(engine, status=status)

    scripted = answer(engine, request())

    assert (scripted.ran, scripted.publisher.sent, row_of(engine)["status"]) == ([], [], status)


def test_a_request_that_would_be_refused_does_not_wait_for_a_slot(engine: Engine) -> None:
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        claimed(scripted.jobs)
        await scripted.slots.take()
        await asyncio.wait_for(scripted.intake.handle(request()), 30)
        return scripted

    assert asyncio.run(run()).count("running") == 1


def test_a_request_waits_for_a_slot_before_it_claims(engine: Engine) -> None:
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        await scripted.slots.take()
        answering = asyncio.create_task(scripted.intake.handle(request()))
        await asyncio.wait({answering}, timeout=0.3)
        assert (answering.done(), runs_of(engine)) == (False, [])
        set_status(engine, "CANCELLED")  # while it waits
        scripted.slots.give_back()
        await asyncio.wait_for(answering, 30)
        return scripted

    scripted = asyncio.run(run())
    assert (scripted.count("cancelled"), scripted.ran) == (1, [])


def test_a_claim_that_has_begun_still_runs_when_its_agent_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        find, began = scripted.jobs.find, asyncio.Event()
        loop = asyncio.get_running_loop()

        def find_and_signal(project_id: str, export_id: str) -> Any:
            loop.call_soon_threadsafe(began.set)
            return find(project_id, export_id)

        monkeypatch.setattr(scripted.jobs, "find", find_and_signal)
        answering = asyncio.create_task(scripted.intake.handle(request()))
        await began.wait()
        answering.cancel()
        await scripted.intake.finish_claims(30)
        await scripted.slots.drain(30, 0)
        return scripted

    assert [claim.attempt for claim in asyncio.run(run()).ran] == [1]


def test_a_request_waits_for_an_unavailable_database(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.BACKOFF", Backoff(first=0.01))
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        find, tries = scripted.jobs.find, iter([Unavailable("the database is unavailable"), LookupError("a bug"), None])

        def flaky(project_id: str, export_id: str) -> Any:
            if (error := next(tries)) is not None:
                raise error
            return find(project_id, export_id)

        monkeypatch.setattr(scripted.jobs, "find", flaky)
        await asyncio.wait_for(scripted.intake.handle(request()), 30)
        await scripted.slots.drain(30, 0)
        return scripted

    assert len(asyncio.run(run()).ran) == 1


def test_a_request_that_keeps_failing_unexpectedly_is_dead_lettered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.intake.BACKOFF", Backoff(first=0.001))

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)

        def broken(*_: str) -> None:
            raise LookupError("a bug")

        monkeypatch.setattr(scripted.jobs, "find", broken)
        await asyncio.wait_for(scripted.intake.handle(request()), 30)
        return scripted

    scripted = asyncio.run(run())
    assert (scripted.count("bug"), scripted.slots.free) == (1, 1)
    assert dict(scripted.publisher.sent[0].headers)["waybill-reason"] == b"an unexpected error occurred: LookupError"


def test_a_closed_intake_claims_nothing(engine: Engine) -> None:
    queue(engine)

    async def run() -> ScriptedIntake:
        scripted = ScriptedIntake(engine)
        scripted.closed.set()
        with pytest.raises(Closed):
            await scripted.intake.handle(request())
        with pytest.raises(Closed):
            await scripted.intake.start_without_event(job_of(scripted.jobs).key)
        assert scripted.slots.free == 1
        return scripted

    asyncio.run(run())
    assert runs_of(engine) == []
