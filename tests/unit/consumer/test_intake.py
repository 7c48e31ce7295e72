import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine, make_url

from config.errors import Unavailable
from config.events import ExportRequested
from config.tables import application
from consumer.dead_letters import Received
from consumer.guards import Policy
from consumer.intake import Closed
from runtime.database import open_database
from runtime.migrations import migrate
from tests.support.exports import NOW, claimed, job_of, letters, queue, row_of, runs_of, set_status
from tests.support.intake import Desk

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


def message(value: bytes | None) -> Received:
    headers = (("trace", b"1"),)
    return Received(topic="requests", partition=3, offset=7, key=b"k", value=value, headers=headers)


def request(export_id: str = "export-1") -> Received:
    return message(ExportRequested(project_id="project-1", batch_export_id=export_id).encode())


def answer(engine: Engine, what: Received, **changes: Any) -> Desk:
    async def scene() -> Desk:
        desk = Desk(engine, **changes)
        await asyncio.wait_for(desk.reception.answer(what), 30)
        await desk.slots.drain(30, 0)
        return desk

    return asyncio.run(scene())


def test_nothing_is_claimed_while_the_outbox_is_full(engine: Engine) -> None:
    queue(engine)

    async def scene() -> None:
        desk = Desk(engine)
        desk.reception.outbox_full.set()
        with pytest.raises(Unavailable, match="too many events wait"):
            await desk.reception.take_up(job_of(desk.jobs))
        assert (desk.ran, desk.slots.free) == ([], 1)
        desk.reception.outbox_full.clear()
        await desk.reception.take_up(job_of(desk.jobs))
        await desk.slots.drain(30, 0)
        assert [claim.job.id for claim in desk.ran] == ["export-1"]

    asyncio.run(scene())


def test_a_request_is_claimed_and_run(engine: Engine) -> None:
    queue(engine)

    desk = answer(engine, request())

    assert [claim.job.id for claim in desk.ran] == ["export-1"]
    assert (desk.count("accepted"), desk.post.sent) == (1, [])
    assert desk.counted("waybill_exports_started_total", table="traces", format="CSV") == 1


def test_a_malformed_message_is_buried_untouched(engine: Engine) -> None:
    desk = answer(engine, message(b"\xff not json"))

    (sent,) = desk.post.sent
    assert (sent.topic, sent.key, sent.value) == ("dlq", b"k", b"\xff not json")
    assert sent.headers[0] == ("trace", b"1")
    why = dict(sent.headers[1:])
    assert why["waybill-error-class"] == b"malformed"
    assert (why["waybill-topic"], why["waybill-partition"], why["waybill-offset"]) == (b"requests", b"3", b"7")
    assert why["waybill-time"] == b"2026-11-21T12:00:00.000Z"
    assert desk.count("malformed") == desk.counted("waybill_dead_letters_total", verdict="malformed") == 1


def test_a_message_that_no_topic_takes_whole_is_cut_and_says_so(engine: Engine) -> None:
    async def scene() -> Desk:
        desk = Desk(engine)
        desk.post.answers = [TOO_LARGE]
        await desk.reception.answer(message(b"x" * 100_000))
        return desk

    whole, cut = asyncio.run(scene()).post.sent
    assert len(whole.value or b"") == 100_000
    assert len(cut.value or b"") == 65536
    assert dict(cut.headers)["waybill-cut-from-bytes"] == b"100000"


def test_a_dead_letter_that_kafka_does_not_take_is_sent_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.FIRST_PAUSE", 0.01)

    async def scene() -> Desk:
        desk = Desk(engine)
        desk.post.answers = [KafkaError(KafkaError._ALL_BROKERS_DOWN)] * 2
        await desk.reception.answer(message(b"bad"))
        return desk

    desk = asyncio.run(scene())
    assert (len(desk.post.sent), desk.count("malformed")) == (3, 1)


def test_an_unknown_row_is_looked_for_and_then_buried(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.LOOKS_AGAIN", (0.01, 0.01))

    desk = answer(engine, request("nowhere"))

    assert (len(desk.post.sent), desk.count("missing")) == (1, 1)


def test_a_disabled_consumer_buries_requests_and_touches_nothing(engine: Engine) -> None:
    queue(engine)

    desk = answer(engine, request(), policy=Policy(enabled=False, stale_after=timedelta(days=30), max_attempts=3))

    assert (len(desk.post.sent), desk.count("disabled"), row_of(engine)["status"]) == (1, 1, "QUEUED")


def test_a_stale_export_fails_with_an_event(engine: Engine) -> None:
    queue(engine, created_at=NOW - timedelta(days=31))

    desk = answer(engine, request())

    assert (row_of(engine)["status"], len(letters(engine)), desk.ran) == ("FAILED", 1, [])
    assert desk.count("stale") == 1
    assert desk.counted("waybill_exports_total", outcome="failed", table="traces", format="CSV") == 1
    assert desk.counted("waybill_attempts_failed_total", reason="stale") == 1


@pytest.mark.parametrize("status", ["CANCELLED", "COMPLETED", "FAILED"])
def test_what_has_ended_is_skipped(engine: Engine, status: str) -> None:
    queue(engine, status=status)

    desk = answer(engine, request())

    assert (desk.ran, desk.post.sent, row_of(engine)["status"]) == ([], [], status)


def test_what_would_be_refused_does_not_wait_for_a_slot(engine: Engine) -> None:
    queue(engine)

    async def scene() -> Desk:
        desk = Desk(engine)
        claimed(desk.jobs)
        await desk.slots.take()
        await asyncio.wait_for(desk.reception.answer(request()), 30)
        return desk

    assert asyncio.run(scene()).count("running") == 1


def test_a_request_waits_for_a_slot_before_it_claims(engine: Engine) -> None:
    queue(engine)

    async def scene() -> Desk:
        desk = Desk(engine)
        await desk.slots.take()
        answering = asyncio.create_task(desk.reception.answer(request()))
        await asyncio.wait({answering}, timeout=0.3)
        assert (answering.done(), runs_of(engine)) == (False, [])
        set_status(engine, "CANCELLED")  # while it waits
        desk.slots.give_back()
        await asyncio.wait_for(answering, 30)
        return desk

    desk = asyncio.run(scene())
    assert (desk.count("cancelled"), desk.ran) == (1, [])


def test_a_request_whose_agent_is_cancelled_while_it_claims_still_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(engine)

    async def scene() -> Desk:
        desk = Desk(engine)
        find, began = desk.jobs.find, asyncio.Event()
        loop = asyncio.get_running_loop()

        def telling(project_id: str, export_id: str) -> Any:
            loop.call_soon_threadsafe(began.set)
            return find(project_id, export_id)

        monkeypatch.setattr(desk.jobs, "find", telling)
        answering = asyncio.create_task(desk.reception.answer(request()))
        await began.wait()
        answering.cancel()
        await desk.reception.settle(30)
        await desk.slots.drain(30, 0)
        return desk

    assert [claim.attempt for claim in asyncio.run(scene()).ran] == [1]


def test_a_database_that_is_away_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.FIRST_PAUSE", 0.01)
    queue(engine)

    async def scene() -> Desk:
        desk = Desk(engine)
        find, tries = desk.jobs.find, iter([Unavailable("away"), LookupError("odd"), None])

        def flaky(project_id: str, export_id: str) -> Any:
            if (error := next(tries)) is not None:
                raise error
            return find(project_id, export_id)

        monkeypatch.setattr(desk.jobs, "find", flaky)
        await asyncio.wait_for(desk.reception.answer(request()), 30)
        await desk.slots.drain(30, 0)
        return desk

    assert len(asyncio.run(scene()).ran) == 1


def test_an_event_that_meets_a_bug_again_and_again_is_buried(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.intake.FIRST_PAUSE", 0.001)

    async def scene() -> Desk:
        desk = Desk(engine)

        def broken(*_: str) -> None:
            raise LookupError("odd")

        monkeypatch.setattr(desk.jobs, "find", broken)
        await asyncio.wait_for(desk.reception.answer(request()), 30)
        return desk

    desk = asyncio.run(scene())
    assert (desk.count("bug"), desk.slots.free) == (1, 1)
    assert dict(desk.post.sent[0].headers)["waybill-reason"] == b"it can't be answered: LookupError"


def test_a_closed_reception_claims_nothing(engine: Engine) -> None:
    queue(engine)

    async def scene() -> Desk:
        desk = Desk(engine)
        desk.closed.set()
        with pytest.raises(Closed):
            await desk.reception.answer(request())
        with pytest.raises(Closed):
            await desk.reception.take_up(desk.jobs.find("project-1", "export-1"))  # type: ignore[arg-type] # it is there
        assert desk.slots.free == 1
        return desk

    asyncio.run(scene())
    assert runs_of(engine) == []
