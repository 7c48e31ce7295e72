"""The webhook and Slack end to end: a completion event in, and one message out for each channel."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row, select

from config.events import ExportFinished
from config.tables import notices
from tests.e2e.completions import add_ended_export, emails, notifier, publish
from tests.services.process import free_port
from tests.services.stacks import Stack
from tests.support.daemons import Daemon, eventually, waybill
from tests.support.webhooks import (
    OTHER_SECRET,
    SECRET,
    Request,
    WebhookReceiver,
    answer_status,
    cut,
    webhook_receiver,
)

pytestmark = pytest.mark.slow

SHORT = {"WAYBILL_LEASE_SECONDS": "2", "WAYBILL_HEARTBEAT_SECONDS": "0.5", "WAYBILL_DRAIN_SECONDS": "1"}


@pytest.fixture
def webhook() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


@pytest.fixture
def slack() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


def settings(webhook: WebhookReceiver, slack: WebhookReceiver) -> dict[str, str]:
    return {
        "WAYBILL_WEBHOOK_URL": webhook.url,
        "WAYBILL_WEBHOOK_SECRET": f"{SECRET},{OTHER_SECRET}",
        "WAYBILL_SLACK_WEBHOOK_URL": slack.url,
        "WAYBILL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "NEXTAUTH_URL": "https://langfuse.example.com",
    }


def rows(engine: Engine, event: ExportFinished) -> dict[str, Row[Any]]:
    with engine.connect() as connection:
        found = connection.execute(select(notices).where(notices.c.event_id == event.event_id))
        return {each.channel: each for each in found}


def wait_for(engine: Engine, event: ExportFinished, **states: str) -> None:
    eventually(
        lambda: {channel: each.state for channel, each in rows(engine, event).items()} == states,
        what=f"the notices become {states}",
    )


def wait_for_state(engine: Engine, event: ExportFinished, channel: str, state: str) -> None:
    eventually(lambda: (found := rows(engine, event)) and found[channel].state == state, what=f"{channel} is {state}")


def wait_until_counted(running: Daemon, **labels: str) -> None:
    eventually(lambda: running.metric("waybill_notices_total", **labels) == 1, what=f"{labels} are counted")


def test_a_completion_published_three_times_is_one_message_of_each_channel(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine, name="<!channel> & friends")
    with notifier(stack, tmp_path, **settings(webhook, slack)) as running:
        publish(stack, *[event.encode()] * 3)
        wait_for(engine, event, mail="sent", webhook="sent", slack="sent")
        wait_until_counted(running, channel="mail", outcome="sent")
        wait_until_counted(running, channel="webhook", outcome="sent")
        wait_until_counted(running, channel="slack", outcome="sent")
        eventually(lambda: running.metric("waybill_notices_total", outcome="duplicate") == 2)

    (payload,) = webhook.payloads(SECRET)
    assert webhook.payloads(OTHER_SECRET) == [payload]
    assert (payload["type"], payload["data"]) == ("export.completed", json.loads(event.encode()))
    assert rows(engine, event)["webhook"].message_id == webhook.requests[0].headers["webhook-id"]
    (message,) = slack.requests
    text = json.loads(message.body)["text"]
    assert "&lt;!channel&gt; &amp; friends" in text
    assert "https://langfuse.example.com/project/project-1/settings/exports" in text
    assert len(emails(stack, event)) == 1


def test_receivers_that_fail_do_not_affect_emails_and_get_the_same_message_again(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine)
    webhook.script = [answer_status(500), answer_status(429), cut]
    slack.respond = answer_status(410)
    with notifier(stack, tmp_path, **settings(webhook, slack)) as running:
        publish(stack, event.encode())
        wait_for(engine, event, mail="sent", webhook="sent", slack="failed")
        value = running.metric
        wait_until_counted(running, channel="webhook", outcome="sent")
        assert value("waybill_notices_total", channel="webhook", outcome="retried") == 2
        assert value("waybill_notices_total", channel="webhook", outcome="unanswered") == 1
        assert value("waybill_notices_total", channel="slack", outcome="failed") == 1
        assert value("waybill_notices_total", channel="mail", outcome="sent") == 1
        log = running.log.read_text()

    assert len(webhook.requests) == 4
    assert len({each.headers["webhook-id"] for each in webhook.requests}) == 1
    assert len(webhook.payloads()) == 4
    assert len(slack.requests) == 1
    assert len(emails(stack, event)) == 1
    assert "hush" not in log
    assert SECRET.removeprefix("whsec_") not in log


def test_slow_receivers_delay_no_email(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    go_on = threading.Event()

    def wait(connection: socket.socket, _: Request) -> None:
        go_on.wait(60)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    webhook.respond = slack.respond = wait
    events = [add_ended_export(engine) for _ in range(6)]
    with notifier(stack, tmp_path, **settings(webhook, slack)) as running:
        publish(stack, *(each.encode() for each in events))
        for each in events:
            wait_for_state(engine, each, "mail", "sent")
        assert running.metric("waybill_notices_total", channel="webhook", outcome="sent") == 0
        waiting = {"mail": 0, "webhook": 6, "slack": 6}
        eventually(
            lambda: {each: running.metric("waybill_notices_waiting", channel=each) for each in waiting} == waiting,
            what="the gauges show what waits",
        )
        go_on.set()
        for each in events:
            wait_for(engine, each, mail="sent", webhook="sent", slack="sent")


def test_a_private_address_that_is_not_allowed_gets_nothing(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine)
    refused = settings(webhook, slack) | {"WAYBILL_WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8"}
    with notifier(stack, tmp_path, **refused):
        publish(stack, event.encode())
        eventually(lambda: (found := rows(engine, event)) and found["webhook"].attempts > 1, what="several attempts")

    found = rows(engine, event)
    assert found["mail"].state == "sent"
    for channel in ("webhook", "slack"):
        assert "it has the private address 127.0.0.1" in found[channel].error
    assert webhook.connections == slack.connections == 0


def test_sigkill_after_the_request_was_read_is_counted_and_the_message_is_sent_again(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine)
    with notifier(stack, tmp_path, **settings(webhook, slack) | SHORT) as first:

        def kill(_: socket.socket, __: Request) -> None:
            first.process.kill()
            first.process.wait()

        webhook.script = [kill]
        publish(stack, event.encode())
        first.process.wait(60)
    with notifier(stack, tmp_path, **settings(webhook, slack) | SHORT) as second:
        wait_for_state(engine, event, "webhook", "sent")
        assert second.metric("waybill_notices_total", channel="webhook", outcome="unanswered") == 1

    assert len(webhook.payloads()) == 2
    assert len({each.headers["webhook-id"] for each in webhook.requests}) == 1


def test_a_notice_of_a_channel_that_was_removed_is_skipped(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine)
    webhook.respond = slack.respond = answer_status(503)
    with notifier(stack, tmp_path, **settings(webhook, slack)):
        publish(stack, event.encode())
        eventually(lambda: (found := rows(engine, event)) and found["webhook"].attempts and found["slack"].attempts)
    with notifier(stack, tmp_path):
        wait_for(engine, event, mail="sent", webhook="skipped", slack="skipped")

    assert rows(engine, event)["webhook"].error == "WAYBILL_WEBHOOK_URL is not set"


def test_a_failed_export_is_announced_with_its_reason(
    stack: Stack, engine: Engine, tmp_path: Path, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    event = add_ended_export(engine, status="FAILED", log="Column latncy is not known", url=None)
    with notifier(stack, tmp_path, **settings(webhook, slack)):
        publish(stack, event.encode())
        wait_for(engine, event, mail="sent", webhook="sent", slack="sent")

    (payload,) = webhook.payloads()
    assert (payload["type"], payload["data"]["error"]) == ("export.failed", "Column latncy is not known")
    assert b"failed, so no file was created. Reason: Column latncy is not known." in slack.requests[0].body


def test_the_doctor_connects_to_the_receivers_and_sends_nothing(
    stack: Stack, webhook: WebhookReceiver, slack: WebhookReceiver
) -> None:
    environment = stack.environment() | settings(webhook, slack)
    found = json.loads(waybill("doctor", "--json", environment=environment).stdout)
    assert found["channels"] == "ok"
    assert webhook.requests == slack.requests == []

    closed = {"WAYBILL_SLACK_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/hush"}
    wrong = waybill("doctor", "--json", environment=environment | closed)
    assert json.loads(wrong.stdout)["channels"].startswith(
        "the receiver of WAYBILL_SLACK_WEBHOOK_URL is unavailable (connection refused)"
    )
    assert "hush" not in wrong.stdout + wrong.stderr

    refused = waybill("doctor", "--json", environment=environment | {"WAYBILL_WEBHOOK_ALLOWED_NETWORKS": ""})
    assert json.loads(refused.stdout)["channels"].count("it has the private address 127.0.0.1") == 2
