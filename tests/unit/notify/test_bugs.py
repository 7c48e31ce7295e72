"""A bug is logged and counted, ends with a dead letter or a failed notice, and blocks nothing behind it."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine, insert, select

from config.labels import Verdict
from config.tables import notices, outbox
from notify.deliver import NotifierContext
from notify.notices import Notices
from notify.notifier import Notifier
from runtime.dead_letters import ReceivedMessage
from runtime.kafka_records import Unreadable
from runtime.retry import Backoff
from tests.support.intake import FakePublisher
from tests.support.notices import MailServer, add_export, add_user, completion, send_due
from tests.unit.notify.test_app import counted, notifier, received


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notify.intake.RETRIES", Backoff(first=0.01))


@pytest.fixture
def context(engine: Engine, context: NotifierContext) -> NotifierContext:
    """A context in a database whose table of notices refuses some writes for the event `poison`."""
    add_user(engine)
    add_export(engine, expires_at=datetime.now(UTC) + timedelta(hours=24))
    store = Notices(engine, retry_for=timedelta(hours=1), first_delay=timedelta(seconds=5), lease=timedelta(seconds=60))
    return replace(context, notices=store)


def refuse(engine: Engine, write: str, condition: str = "NEW.event_id LIKE 'poison%'") -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE {write} ON waybill_notices WHEN {condition} "
            "BEGIN SELECT RAISE(ABORT, 'a bug'); END"
        )


def publisher_of(one: Notifier) -> FakePublisher:
    publisher: Any = one.intake.publisher
    assert isinstance(publisher, FakePublisher)
    return publisher


def dead_letters(one: Notifier) -> list[tuple[bytes | None, str]]:
    return [
        (each.value, (dict(each.headers)["waybill-error-class"] or b"").decode()) for each in publisher_of(one).sent
    ]


def states(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(select(notices.c.event_id, notices.c.state))
        return {row.event_id: row.state for row in rows}


def test_a_message_that_meets_a_bug_becomes_a_dead_letter(
    engine: Engine, context: NotifierContext, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(engine, "INSERT")
    poison = completion(event_id="poison").encode()

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await one.intake.handle(received(poison))
        await one.intake.handle(received(completion(attempt=2).encode()))
        assert counted(one) == {"bug": 1}
        assert dead_letters(one) == [(poison, "bug")]
        assert one._metrics.dead_letters.labels(Verdict.BUG)._value.get() == 1

    asyncio.run(run())

    assert states(engine) == {"event-1": "pending"}
    assert [each for each in caplog.records if each.exc_info]


def test_a_malformed_message_becomes_a_dead_letter(context: NotifierContext) -> None:
    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await one.intake.handle(received(b"not json"))
        assert counted(one) == {"malformed": 1}
        assert dead_letters(one) == [(b"not json", "malformed")]

    asyncio.run(run())


def test_an_unreadable_message_becomes_a_dead_letter_when_kafka_accepts_it(context: NotifierContext) -> None:
    value = Unreadable(b"bytes", reason="the name of a header is not UTF-8", first=4, content="value")
    message = ReceivedMessage(
        topic="completions", partition=0, offset=4, key=b"k", value=value, headers=(), unreadable=value
    )

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        publisher_of(one).answers = [KafkaError(KafkaError._ALL_BROKERS_DOWN)]
        await one.intake.handle(message)
        assert dead_letters(one) == [(b"bytes", "unreadable")] * 2
        assert dict(publisher_of(one).sent[1].headers)["waybill-reason"] == b"the name of a header is not UTF-8"
        assert counted(one) == {"unreadable": 1}

    asyncio.run(run())


def test_a_dead_letter_that_meets_a_bug_blocks_nothing(
    context: NotifierContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        one = notifier(context, asyncio.Event())
        monkeypatch.setattr(FakePublisher, "publish", lambda *_: 1 / 0)
        await asyncio.wait_for(one.intake.handle(received(b"not json")), 20)

    asyncio.run(run())

    assert any("stays in its topic" in each.getMessage() for each in caplog.records)


def test_notices_that_meet_a_bug_do_not_block_the_others(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    """Ten notices that can't be claimed are due before a good one, and four are sent at a time."""
    old = datetime.now(UTC) - timedelta(minutes=10)
    for number in range(10):
        context.notices.record(completion(event_id=f"poison-{number}", attempt=number), old)
    context.notices.record(completion(attempt=99), old + timedelta(minutes=1))
    refuse(engine, "UPDATE")

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await asyncio.wait_for(send_due(one), 30)
        assert counted(one) == {"bug": 10, "sent": 1}
        assert await one._until_next() == one._sweep

    asyncio.run(run())

    assert len(server.taken) == 1


def test_an_email_whose_sending_can_not_be_recorded_is_not_sent_again(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    context.notices.record(completion(), datetime.now(UTC))
    refuse(engine, "UPDATE", "NEW.state = 'sent'")

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await asyncio.wait_for(send_due(one), 30)
        assert counted(one) == {"failed": 1}

    asyncio.run(run())

    assert states(engine) == {"event-1": "failed"}
    assert len(server.taken) == 1


def test_completions_that_can_not_be_recorded_do_not_block_the_search_for_missed_ones(
    engine: Engine, context: NotifierContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ago = datetime.now(UTC) - timedelta(minutes=10)
    payloads = (
        "{}",
        completion(event_id="poison", attempt=2).encode().decode(),
        completion().encode().decode(),
    )
    with engine.begin() as connection:
        for number, payload in enumerate(payloads):
            at = ago + timedelta(seconds=number)
            row = {"topic": "export-completions", "key": "k", "payload": payload, "created_at": at, "published_at": at}
            connection.execute(insert(outbox).values(row))
    refuse(engine, "INSERT")

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        for _ in range(2):
            await one.catch_up()
        assert counted(one) == {"bug": 2}

    asyncio.run(run())

    assert states(engine) == {"event-1": "pending"}


def test_a_bug_does_not_end_the_loop_that_sends(
    engine: Engine, context: NotifierContext, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Notices.find_due, []

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("a bug")
        return real(*args, **kwargs)

    monkeypatch.setattr(Notices, "find_due", fail_once)
    context.notices.record(completion(), datetime.now(UTC))

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.create_task(notifier(context, stop).send())
        async with asyncio.timeout(20):
            while states(engine) != {"event-1": "sent"}:  # noqa: ASYNC110 (a table can't signal a change)
                await asyncio.sleep(0.02)
        stop.set()
        await loop

    asyncio.run(run())

    assert len(server.taken) == 1
