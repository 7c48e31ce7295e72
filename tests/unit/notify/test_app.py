import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, Row, insert, make_url, select, update

from config.metrics import Metrics
from config.settings import Settings, load
from config.tables import notices, outbox
from notify.app import Notifier
from notify.deliver import Desk, Post
from notify.notices import Notices
from notify.smtp import parse_server
from runtime.database import open_database
from runtime.http import Health
from tests.support.notices import MailServer, add_export, add_user, completion, create_tables, mail_server

SETTINGS = {"WAYBILL_LEASE_SECONDS": "1", "WAYBILL_SWEEP_SECONDS": "0.2", "KAFKA_BOOTSTRAP_SERVERS": "nowhere:1"}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/application.db"))
    create_tables(opened)
    add_user(opened)
    add_export(opened, expires_at=datetime.now(UTC) + timedelta(hours=24))
    yield opened
    opened.dispose()


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


@pytest.fixture
def desk(engine: Engine, server: MailServer) -> Desk:
    return Desk(
        engine,
        patient_for(engine, timedelta(hours=1)),
        Post(parse_server(server.url), "exports@example.com"),
        None,
        None,
    )


def patient_for(engine: Engine, patience: timedelta, lease: timedelta = timedelta(seconds=1)) -> Notices:
    return Notices(engine, patience=patience, first_pause=timedelta(milliseconds=50), lease=lease)


def notifier(desk: Desk, stop: asyncio.Event, settings: Settings | None = None) -> Notifier:
    return Notifier(settings or load(SETTINGS), desk, Metrics(CollectorRegistry()), Health({}), stop)


def counted(one: Notifier) -> dict[str, float]:
    samples = next(iter(one._metrics.notices.metric.collect())).samples
    return {each.labels["outcome"]: each.value for each in samples if each.name.endswith("_total") and each.value}


def rows(engine: Engine) -> list[Row[Any]]:
    with engine.connect() as connection:
        return list(connection.execute(select(notices)))


async def eventually(look: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 (what is looked at is a table or a server: nothing rings)
            await asyncio.sleep(0.02)


async def sending(one: Notifier, stop: asyncio.Event, scene: Awaitable[None]) -> None:
    """Play the scene while the notifier sends, then stop it and wait for it."""
    loop = asyncio.create_task(one.send())
    try:
        await scene
    finally:
        stop.set()
        await asyncio.wait_for(loop, 20)


def test_a_completion_that_comes_many_times_is_one_mail(engine: Engine, desk: Desk, server: MailServer) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        one = notifier(desk, stop)

        async def scene() -> None:
            for _ in range(5):
                await one.record(completion().encode())
            await eventually(lambda: rows(engine)[0].state == "sent")
            await one.record(completion().encode())

        await sending(one, stop, scene())
        assert counted(one) == {"sent": 1, "duplicate": 5}

    asyncio.run(play())

    assert len(server.taken) == 1
    assert rows(engine)[0].message_id == server.messages[0]["Message-ID"]


def test_notices_that_wait_are_counted_with_the_age_of_the_oldest(engine: Engine, desk: Desk) -> None:
    one = notifier(desk, asyncio.Event())
    for number, age in enumerate((30, 90, 60)):
        made = completion(event_id=f"e{number}", attempt=number)
        desk.notices.record(made, datetime.now(UTC) - timedelta(seconds=age))
    with engine.begin() as connection:
        connection.execute(update(notices).where(notices.c.attempt == 1).values(state="sent"))

    asyncio.run(one.measure())

    value = one._metrics.registry.get_sample_value
    assert value("waybill_notices_waiting") == 2
    assert 60 <= (value("waybill_oldest_notice_seconds") or 0) < 90


def test_two_notifiers_send_one_mail_each_notice(engine: Engine, desk: Desk, server: MailServer) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        long_leases = replace(desk, notices=patient_for(engine, timedelta(hours=1), timedelta(minutes=1)))
        both = [notifier(long_leases, stop), notifier(long_leases, stop)]
        for number in range(20):
            await both[0].record(completion(event_id=f"e{number}", attempt=number).encode())

        async def scene() -> None:
            await eventually(lambda: all(each.state == "sent" for each in rows(engine)))

        await asyncio.gather(*(sending(each, stop, scene()) for each in both))
        assert sum(counted(each)["sent"] for each in both if counted(each).get("sent")) == 20

    asyncio.run(play())

    assert len({each["Message-ID"] for each in server.messages}) == len(server.taken) == 20


def test_a_mail_that_the_server_was_not_given_yet_is_handed_over(
    engine: Engine, desk: Desk, server: MailServer
) -> None:
    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            post = Post(parse_server(f"smtp://127.0.0.1:{silent.getsockname()[1]}"), "exports@example.com")
            ending = notifier(replace(desk, post=post), asyncio.Event())
            await ending.record(completion().encode())
            sending_it = asyncio.create_task(ending.send_due())
            await eventually(lambda: rows(engine)[0].state == "sending")
            conversation, _ = await asyncio.to_thread(silent.accept)
            await ending.hand_over()
            assert (rows(engine)[0].state, rows(engine)[0].error) == ("pending", "the notifier had to end")
            with conversation:
                await asyncio.to_thread(greet, conversation)
            await sending_it
        stop = asyncio.Event()
        other = notifier(desk, stop)
        await sending(other, stop, eventually(lambda: rows(engine)[0].state == "sent"))

    asyncio.run(play())

    assert len(server.taken) == 1


def greet(conversation: socket.socket) -> None:
    """Answer as a server does until the mail itself comes, or nothing more."""
    conversation.settimeout(20)
    conversation.sendall(b"220 hello\r\n")
    for answer in (b"250 hello\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go on\r\n"):
        if not conversation.recv(1000):
            return
        conversation.sendall(answer)
    assert conversation.recv(1000) == b"", "a mail was sent that was handed over"


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b"{}", b"x" * 1_000_000])
def test_a_malformed_completion_is_counted_and_skipped(engine: Engine, desk: Desk, value: bytes | None) -> None:
    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        await one.record(value)
        assert counted(one) == {"malformed": 1}

    asyncio.run(play())

    assert rows(engine) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"eventId": "a\x00b"},
        {"attempt": 2**31},
        {"attempt": -1},
        {"projectId": ""},
        {"batchExportId": "x" * 513},
        {"status": "QUEUED"},
    ],
)
def test_a_completion_that_could_never_be_a_row_is_malformed(desk: Desk, changes: dict[str, Any]) -> None:
    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        event = completion().model_dump(by_alias=True) | changes
        await one.record(completion().model_construct(**event).encode())
        assert counted(one) == {"malformed": 1}

    asyncio.run(play())


def test_trouble_is_retried_until_it_is_over(engine: Engine, desk: Desk, server: MailServer) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        one = notifier(desk, stop)
        server.rcpt = "450 4.2.0 greylisted"

        async def scene() -> None:
            await one.record(completion().encode())
            await eventually(lambda: rows(engine)[0].attempts >= 1 and rows(engine)[0].state == "pending")
            server.rcpt = "250 OK"
            await eventually(lambda: rows(engine)[0].state == "sent")

        await sending(one, stop, scene())
        retried = counted(one)["retried"]
        assert counted(one) == {"retried": retried, "sent": 1}
        assert rows(engine)[0].attempts == retried + 1

    asyncio.run(play())


def test_trouble_that_stays_has_failed_when_its_time_is_over(engine: Engine, desk: Desk, server: MailServer) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        one = notifier(replace(desk, notices=patient_for(engine, timedelta(seconds=1))), stop)
        server.data = "451 busy"

        async def scene() -> None:
            await one.record(completion().encode())
            await eventually(lambda: rows(engine)[0].state == "failed")

        await sending(one, stop, scene())
        assert counted(one) == {"retried": rows(engine)[0].attempts - 1, "failed": 1}

    asyncio.run(play())

    assert rows(engine)[0].attempts > 3
    assert rows(engine)[0].error == "the mail server refuses the message (451)"


def test_a_slow_mail_keeps_its_lease(engine: Engine, desk: Desk, server: MailServer) -> None:
    """The server takes three leases for its answer, and another notifier is looking for work all the time."""

    async def play() -> None:
        stop, other_stop = asyncio.Event(), asyncio.Event()
        one, other = notifier(desk, stop), notifier(desk, other_stop)
        go_on = threading.Event()

        async def slow() -> None:
            await asyncio.to_thread(go_on.wait, 20)

        server.answer_data = slow

        async def scene() -> None:
            await one.record(completion().encode())
            await eventually(lambda: len(server.taken) == 1)
            until = datetime.now(UTC) + timedelta(seconds=3)
            while datetime.now(UTC) < until:
                await other.send_due()
                await asyncio.sleep(0.05)
            go_on.set()
            await eventually(lambda: rows(engine)[0].state == "sent")

        await sending(one, stop, scene())
        assert counted(one) == {"sent": 1}
        assert counted(other) == {}

    asyncio.run(play())

    assert len(server.taken) == 1


def test_a_notice_of_a_dead_notifier_is_taken_over(desk: Desk, server: MailServer) -> None:
    ago = datetime.now(UTC) - timedelta(minutes=1)
    desk.notices.record(completion(), ago)
    assert desk.notices.claim(desk.notices.due(ago, limit=1)[0], ago) is not None

    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        await one.send_due()
        assert counted(one) == {"sent": 1}

    asyncio.run(play())

    assert len(server.taken) == 1


def test_a_notice_whose_last_attempt_died_has_failed(engine: Engine, desk: Desk, server: MailServer) -> None:
    ago = datetime.now(UTC) - timedelta(hours=1)
    desk.notices.record(completion(), ago)
    with engine.begin() as connection:
        connection.execute(update(notices).values(attempts=1, state="sending"))

    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        await one.send_due()
        assert counted(one) == {"failed": 1}

    asyncio.run(play())

    assert server.taken == []


def test_a_mail_that_is_out_is_recorded_although_the_database_was_away(
    engine: Engine, desk: Desk, server: MailServer
) -> None:
    """The table is gone when the mail is taken, and comes back: one mail, recorded as sent."""

    def lose(_: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE waybill_notices RENAME TO elsewhere")

    server.before_answer = lose

    async def play() -> None:
        stop = asyncio.Event()
        one = notifier(desk, stop)

        async def scene() -> None:
            await one.record(completion().encode())
            await eventually(lambda: len(server.taken) == 1)
            await asyncio.sleep(0.5)
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO waybill_notices")
            await eventually(lambda: rows(engine)[0].state == "sent")

        await sending(one, stop, scene())
        assert counted(one) == {"sent": 1}

    asyncio.run(play())

    assert len(server.taken) == 1


def test_a_completion_is_not_let_go_before_it_is_a_row(engine: Engine, desk: Desk) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE waybill_notices RENAME TO elsewhere")

    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        recording = asyncio.create_task(one.record(completion().encode()))
        done, _ = await asyncio.wait({recording}, timeout=0.5)
        assert done == set()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO waybill_notices")
        await asyncio.wait_for(recording, 20)

    asyncio.run(play())

    assert [each.state for each in rows(engine)] == ["pending"]


def test_a_completion_that_never_came_is_found_in_the_outbox(engine: Engine, desk: Desk, server: MailServer) -> None:
    ago = datetime.now(UTC) - timedelta(minutes=10)
    values = {
        "topic": "export-completions",
        "key": "export-1",
        "payload": completion().encode().decode(),
        "created_at": ago,
        "published_at": ago,
    }
    with engine.begin() as connection:
        connection.execute(insert(outbox).values(values))

    async def play() -> None:
        one = notifier(desk, asyncio.Event())
        for _ in range(2):
            await one.look_for_missed()
        await one.send_due()
        await one.record(completion().encode())
        assert counted(one) == {"sent": 1, "duplicate": 1}

    asyncio.run(play())

    assert len(server.taken) == 1


def test_without_mail_settings_notices_are_skipped(engine: Engine, desk: Desk) -> None:
    async def play() -> None:
        one = notifier(replace(desk, post=None), asyncio.Event())
        await one.record(completion().encode())
        await one.send_due()
        assert counted(one) == {"skipped": 1}

    asyncio.run(play())

    assert [each.state for each in rows(engine)] == ["skipped"]
