import asyncio
import socket
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, Row, insert, select, update

from config.labels import Channel
from config.metrics import Metrics
from config.settings import Settings, load
from config.tables import notices, outbox
from notify.deliver import MailTransport, NotifierContext
from notify.notices import Notices
from notify.notifier import Notifier
from notify.open_channels import list_channels, open_slack, open_webhook
from notify.smtp_url import parse_server
from runtime.dead_letters import ReceivedMessage
from runtime.http import Health
from tests.support.intake import FakePublisher
from tests.support.notices import SENDER, MailServer, add_export, add_user, completion, send_due
from tests.support.webhooks import SECRET, Request, answer_status, webhook_receiver

SETTINGS = {"WAYBILL_LEASE_SECONDS": "1", "WAYBILL_SWEEP_SECONDS": "0.2", "KAFKA_BOOTSTRAP_SERVERS": "nowhere:1"}


@pytest.fixture
def context(engine: Engine, context: NotifierContext) -> NotifierContext:
    """A context with short delays, in a database with a user and an export."""
    add_user(engine)
    add_export(engine, expires_at=datetime.now(UTC) + timedelta(hours=24))
    return replace(context, notices=notices_for(engine, timedelta(hours=1)))


def notices_for(engine: Engine, retry_for: timedelta, lease: timedelta = timedelta(seconds=1)) -> Notices:
    return Notices(engine, retry_for=retry_for, first_delay=timedelta(milliseconds=50), lease=lease)


def notifier(context: NotifierContext, stop: asyncio.Event, settings: Settings | None = None) -> Notifier:
    publisher: Any = FakePublisher()
    return Notifier(settings or load(SETTINGS), context, Metrics(CollectorRegistry()), Health({}), stop, publisher)


def with_channels(context: NotifierContext, engine: Engine, webhook: str, slack: str) -> NotifierContext:
    """The context with a webhook and with Slack, for receivers at these URLs."""
    settings = load(
        {
            "WAYBILL_WEBHOOK_URL": webhook,
            "WAYBILL_WEBHOOK_SECRET": SECRET,
            "WAYBILL_SLACK_WEBHOOK_URL": slack,
            "WAYBILL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        }
    )
    store = Notices(
        engine,
        retry_for=timedelta(hours=1),
        first_delay=timedelta(milliseconds=50),
        lease=timedelta(minutes=1),
        channels=list_channels(settings),
    )
    return replace(context, notices=store, webhook=open_webhook(settings), slack=open_slack(settings))


def received(value: bytes | None) -> ReceivedMessage:
    return ReceivedMessage(topic="completions", partition=0, offset=4, key=b"k", value=value, headers=())


def counted(one: Notifier) -> dict[str, float]:
    samples = next(iter(one._metrics.notices.metric.collect())).samples
    found: dict[str, float] = defaultdict(float)
    for each in samples:
        if each.name.endswith("_total") and each.value:
            found[each.labels["outcome"]] += each.value
    return dict(found)


def states(engine: Engine, channel: Channel) -> list[str]:
    return [each.state for each in read_notices(engine) if each.channel == channel]


def read_notices(engine: Engine) -> list[Row[Any]]:
    with engine.connect() as connection:
        return list(connection.execute(select(notices)))


async def eventually(look: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 (a table or a server can't signal a change)
            await asyncio.sleep(0.02)


async def sending(one: Notifier, stop: asyncio.Event, steps: Awaitable[None]) -> None:
    """Await the steps while the notifier sends, then stop it."""
    loop = asyncio.create_task(one.send())
    try:
        await steps
    finally:
        stop.set()
        await asyncio.wait_for(loop, 20)


def test_a_repeated_completion_sends_one_email(engine: Engine, context: NotifierContext, server: MailServer) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        one = notifier(context, stop)

        async def steps() -> None:
            for _ in range(5):
                await one.intake.handle(received(completion().encode()))
            await eventually(lambda: read_notices(engine)[0].state == "sent")
            await one.intake.handle(received(completion().encode()))

        await sending(one, stop, steps())
        assert counted(one) == {"sent": 1, "duplicate": 5}

    asyncio.run(run())

    assert len(server.taken) == 1
    assert read_notices(engine)[0].message_id == server.messages[0]["Message-ID"]


def test_gauges_show_the_open_notices_and_the_age_of_the_oldest(engine: Engine, context: NotifierContext) -> None:
    one = notifier(context, asyncio.Event())
    for number, age in enumerate((30, 90, 60)):
        made = completion(event_id=f"e{number}", attempt=number)
        context.notices.record(made, datetime.now(UTC) - timedelta(seconds=age))
    with engine.begin() as connection:
        connection.execute(update(notices).where(notices.c.attempt == 1).values(state="sent"))

    asyncio.run(one.measure())

    value = one._metrics.registry.get_sample_value
    assert value("waybill_notices_waiting", {"channel": "mail"}) == 2
    assert 60 <= (value("waybill_oldest_notice_seconds", {"channel": "mail"}) or 0) < 90


def test_two_notifiers_send_one_email_per_notice(engine: Engine, context: NotifierContext, server: MailServer) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        long_leases = replace(context, notices=notices_for(engine, timedelta(hours=1), timedelta(minutes=1)))
        both = [notifier(long_leases, stop), notifier(long_leases, stop)]
        for number in range(20):
            await both[0].intake.handle(received(completion(event_id=f"e{number}", attempt=number).encode()))

        async def steps() -> None:
            await eventually(lambda: all(each.state == "sent" for each in read_notices(engine)))

        await asyncio.gather(*(sending(each, stop, steps()) for each in both))
        assert sum(counted(each)["sent"] for each in both if counted(each).get("sent")) == 20

    asyncio.run(run())

    assert len({each["Message-ID"] for each in server.messages}) == len(server.taken) == 20


def test_an_email_that_the_server_has_not_received_is_released(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            transport = MailTransport(parse_server(f"smtp://127.0.0.1:{silent.getsockname()[1]}"), SENDER)
            ended = asyncio.Event()
            ending = notifier(replace(context, transport=transport), ended)
            await ending.intake.handle(received(completion().encode()))
            sending_it = asyncio.create_task(send_due(ending))
            await eventually(lambda: read_notices(engine)[0].state == "sending")
            conversation, _ = await asyncio.to_thread(silent.accept)
            ended.set()
            await ending.release()
            assert (read_notices(engine)[0].state, read_notices(engine)[0].error) == (
                "pending",
                "the notifier shut down",
            )
            with conversation:
                await asyncio.to_thread(greet, conversation)
            await sending_it
        stop = asyncio.Event()
        other = notifier(context, stop)
        await sending(other, stop, eventually(lambda: read_notices(engine)[0].state == "sent"))

    asyncio.run(run())

    assert len(server.taken) == 1


def test_a_notifier_that_is_ending_takes_no_notice(engine: Engine, context: NotifierContext) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        ending = notifier(context, stop)
        await ending.intake.handle(received(completion().encode()))
        looking = asyncio.create_task(send_due(ending))
        await asyncio.sleep(0)  # it has begun to look for notices
        stop.set()
        await looking

    asyncio.run(run())

    assert read_notices(engine)[0].state == "pending"


def greet(conversation: socket.socket) -> None:
    """Respond like a server up to the DATA command; the message itself must not follow."""
    conversation.settimeout(20)
    conversation.sendall(b"220 hello\r\n")
    for answer in (b"250 hello\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go on\r\n"):
        if not conversation.recv(1000):
            return
        conversation.sendall(answer)
    assert conversation.recv(1000) == b"", "an email was sent after its release"


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b"{}", b"x" * 1_000_000])
def test_a_malformed_completion_is_counted_and_skipped(
    engine: Engine, context: NotifierContext, value: bytes | None
) -> None:
    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await one.intake.handle(received(value))
        assert counted(one) == {"malformed": 1}

    asyncio.run(run())

    assert read_notices(engine) == []


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
def test_a_completion_that_no_row_can_hold_is_malformed(context: NotifierContext, changes: dict[str, Any]) -> None:
    async def run() -> None:
        one = notifier(context, asyncio.Event())
        event = completion().model_dump(by_alias=True) | changes
        await one.intake.handle(received(completion().model_construct(**event).encode()))
        assert counted(one) == {"malformed": 1}

    asyncio.run(run())


def test_a_temporary_failure_is_retried_until_the_email_is_sent(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        one = notifier(context, stop)
        server.rcpt = "450 4.2.0 greylisted"

        async def steps() -> None:
            await one.intake.handle(received(completion().encode()))
            await eventually(
                lambda: read_notices(engine)[0].attempts >= 1 and read_notices(engine)[0].state == "pending"
            )
            server.rcpt = "250 OK"
            await eventually(lambda: read_notices(engine)[0].state == "sent")

        await sending(one, stop, steps())
        retried = counted(one)["retried"]
        assert counted(one) == {"retried": retried, "sent": 1}
        assert read_notices(engine)[0].attempts == retried + 1

    asyncio.run(run())


def test_a_lasting_failure_fails_the_notice_when_its_time_is_over(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        one = notifier(context, stop)
        server.data = "451 busy"

        async def steps() -> None:
            await one.intake.handle(received(completion().encode()))
            await eventually(lambda: read_notices(engine)[0].attempts > 3)
            one.clock._ahead = timedelta(hours=-1)
            await eventually(lambda: read_notices(engine)[0].state == "failed")

        await sending(one, stop, steps())
        assert counted(one) == {"retried": read_notices(engine)[0].attempts - 1, "failed": 1}

    asyncio.run(run())

    assert read_notices(engine)[0].attempts > 3
    assert read_notices(engine)[0].error == "the mail server rejected the message (451)"


def test_a_slow_email_keeps_its_lease(engine: Engine, context: NotifierContext, server: MailServer) -> None:
    """The server takes three leases to respond, while another notifier looks for work."""

    async def run() -> None:
        stop, other_stop = asyncio.Event(), asyncio.Event()
        one, other = notifier(context, stop), notifier(context, other_stop)
        go_on = threading.Event()

        async def slow() -> None:
            await asyncio.to_thread(go_on.wait, 20)

        server.answer_data = slow

        async def steps() -> None:
            await one.intake.handle(received(completion().encode()))
            await eventually(lambda: len(server.taken) == 1)
            until = datetime.now(UTC) + timedelta(seconds=3)
            while datetime.now(UTC) < until:
                await send_due(other)
                await asyncio.sleep(0.05)
            go_on.set()
            await eventually(lambda: read_notices(engine)[0].state == "sent")

        await sending(one, stop, steps())
        assert counted(one) == {"sent": 1}
        assert counted(other) == {}

    asyncio.run(run())

    assert len(server.taken) == 1


def test_an_email_that_waits_for_the_server_delays_no_other(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    async def run() -> None:
        stop, go_on = asyncio.Event(), threading.Event()
        one = notifier(context, stop)

        async def wait_for_the_first() -> None:
            if len(server.taken) == 1:
                await asyncio.to_thread(go_on.wait, 60)

        server.answer_data = wait_for_the_first

        async def steps() -> None:
            await one.intake.handle(received(completion(event_id="slow", attempt=1).encode()))
            await eventually(lambda: len(server.taken) == 1)
            for number in range(2, 8):
                await one.intake.handle(received(completion(event_id=f"e{number}", attempt=number).encode()))
            await eventually(lambda: [each.state for each in read_notices(engine)].count("sent") == 6)
            assert {each.event_id for each in read_notices(engine) if each.state == "sending"} == {"slow"}
            go_on.set()
            await eventually(lambda: all(each.state == "sent" for each in read_notices(engine)))

        try:
            await sending(one, stop, steps())
        finally:
            go_on.set()
        assert counted(one) == {"sent": 7}

    asyncio.run(run())

    assert len(server.taken) == 7


def test_each_channel_gets_one_message_and_a_repeated_completion_adds_none(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    with webhook_receiver() as webhook, webhook_receiver() as slack:

        async def run() -> None:
            one = notifier(with_channels(context, engine, webhook.url, slack.url), asyncio.Event())
            for _ in range(3):
                await one.intake.handle(received(completion().encode()))
            await send_due(one)
            assert counted(one) == {"sent": 3, "duplicate": 2}
            value = one._metrics.registry.get_sample_value
            for channel in Channel:
                assert value("waybill_notices_total", {"channel": channel, "outcome": "sent"}) == 1
            assert value("waybill_notices_total", {"channel": "all", "outcome": "duplicate"}) == 2

        asyncio.run(run())

        assert [each["data"]["batchExportId"] for each in webhook.payloads()] == ["export-1"]
        assert b"traces of September" in slack.requests[0].body
        assert (len(server.taken), len(webhook.requests), len(slack.requests)) == (1, 1, 1)


def test_receivers_that_do_not_respond_delay_no_email(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    """More messages wait for each receiver than are sent at the same time."""
    go_on = threading.Event()

    def wait(connection: socket.socket, _: Request) -> None:
        go_on.wait(60)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with webhook_receiver() as webhook, webhook_receiver() as slack:
        webhook.respond = slack.respond = wait

        async def run() -> None:
            stop = asyncio.Event()
            one = notifier(with_channels(context, engine, webhook.url, slack.url), stop)

            async def steps() -> None:
                for number in range(12):
                    await one.intake.handle(received(completion(event_id=f"e{number}", attempt=number).encode()))
                await eventually(lambda: states(engine, Channel.MAIL) == ["sent"] * 12)
                assert "sent" not in states(engine, Channel.WEBHOOK) + states(engine, Channel.SLACK)
                go_on.set()
                await eventually(lambda: states(engine, Channel.WEBHOOK) == ["sent"] * 12)
                await eventually(lambda: states(engine, Channel.SLACK) == ["sent"] * 12)

            await sending(one, stop, steps())

        asyncio.run(run())

        assert len(server.taken) == 12


def test_a_channel_that_fails_changes_no_other(engine: Engine, context: NotifierContext, server: MailServer) -> None:
    with webhook_receiver() as webhook, webhook_receiver() as slack:
        webhook.respond, slack.respond = answer_status(410), answer_status(500)
        server.rcpt = "550 no"

        async def run() -> None:
            one = notifier(with_channels(context, engine, webhook.url, slack.url), asyncio.Event())
            await one.intake.handle(received(completion().encode()))
            await one.start_due()
            await one.finish()
            assert counted(one) == {"failed": 2, "retried": 1}
            await one.measure()
            value = one._metrics.registry.get_sample_value
            assert value("waybill_notices_waiting", {"channel": "slack"}) == 1
            assert value("waybill_notices_waiting", {"channel": "webhook"}) in {0, None}

        asyncio.run(run())

    found = {each.channel: each for each in read_notices(engine)}
    assert {channel: each.state for channel, each in found.items()} == {
        "mail": "failed",
        "webhook": "failed",
        "slack": "pending",
    }
    assert found["webhook"].error.startswith("the receiver of WAYBILL_WEBHOOK_URL responded with 410")
    assert found["slack"].error == "the receiver of WAYBILL_SLACK_WEBHOOK_URL responded with 500"


def test_notices_of_a_channel_that_is_no_longer_set_are_skipped(engine: Engine, context: NotifierContext) -> None:
    with_all = with_channels(context, engine, "https://a.test", "https://b.test")
    with_all.notices.record(completion(), datetime.now(UTC))

    async def run() -> None:
        await send_due(notifier(replace(with_all, webhook=None, slack=None), asyncio.Event()))

    asyncio.run(run())

    assert {each.channel: each.state for each in read_notices(engine)} == {
        "mail": "sent",
        "webhook": "skipped",
        "slack": "skipped",
    }


def test_the_notice_of_a_crashed_notifier_is_taken_over(context: NotifierContext, server: MailServer) -> None:
    ago = datetime.now(UTC) - timedelta(minutes=1)
    context.notices.record(completion(), ago)
    assert context.notices.claim(context.notices.find_due(ago, Channel.MAIL, limit=1)[0], ago) is not None

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await send_due(one)
        assert counted(one) == {"sent": 1}

    asyncio.run(run())

    assert len(server.taken) == 1


def test_a_notice_whose_last_attempt_crashed_has_failed(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    ago = datetime.now(UTC) - timedelta(hours=1)
    context.notices.record(completion(), ago)
    with engine.begin() as connection:
        connection.execute(update(notices).values(attempts=1, state="sending"))

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        await send_due(one)
        assert counted(one) == {"failed": 1}

    asyncio.run(run())

    assert server.taken == []


def test_a_sent_email_is_recorded_once_the_database_is_available_again(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
    """The table is missing when the email is accepted, and comes back: one email, recorded as sent."""

    def drop_table(_: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE waybill_notices RENAME TO elsewhere")

    server.before_answer = drop_table

    async def run() -> None:
        stop = asyncio.Event()
        one = notifier(context, stop)

        async def steps() -> None:
            await one.intake.handle(received(completion().encode()))
            await eventually(lambda: len(server.taken) == 1)
            await asyncio.sleep(0.5)
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO waybill_notices")
            await eventually(lambda: read_notices(engine)[0].state == "sent")

        await sending(one, stop, steps())
        assert counted(one) == {"sent": 1}

    asyncio.run(run())

    assert len(server.taken) == 1


def test_a_completion_is_not_acknowledged_before_its_row_exists(engine: Engine, context: NotifierContext) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE waybill_notices RENAME TO elsewhere")

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        recording = asyncio.create_task(one.intake.handle(received(completion().encode())))
        done, _ = await asyncio.wait({recording}, timeout=0.5)
        assert done == set()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO waybill_notices")
        await asyncio.wait_for(recording, 20)

    asyncio.run(run())

    assert [each.state for each in read_notices(engine)] == ["pending"]


def test_a_completion_that_kafka_did_not_deliver_is_found_in_the_outbox(
    engine: Engine, context: NotifierContext, server: MailServer
) -> None:
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

    async def run() -> None:
        one = notifier(context, asyncio.Event())
        for _ in range(2):
            await one.catch_up()
        await send_due(one)
        await one.intake.handle(received(completion().encode()))
        assert counted(one) == {"sent": 1, "duplicate": 1}

    asyncio.run(run())

    assert len(server.taken) == 1


def test_without_mail_settings_notices_are_skipped(engine: Engine, context: NotifierContext) -> None:
    async def run() -> None:
        one = notifier(replace(context, transport=None), asyncio.Event())
        await one.intake.handle(received(completion().encode()))
        await send_due(one)
        assert counted(one) == {"skipped": 1}

    asyncio.run(run())

    assert [each.state for each in read_notices(engine)] == ["skipped"]
