"""One attempt for the webhook or for Slack: what is sent, what is skipped, and what is recorded."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from config.events import Status
from config.labels import Channel, NoticeOutcome
from config.links import Links
from config.settings import load
from notify.deliver import Attempt, NotifierContext, attempt, settle
from notify.notice import Notice
from notify.notices import Notices
from notify.open_channels import list_channels, open_slack, open_webhook
from notify.webhook import message_id
from tests.support.notices import NOW, URL, add_export, completion
from tests.support.webhooks import SECRET, WebhookReceiver, answer_status, cut, webhook_receiver

FAILED: dict[str, Any] = {"status": Status.FAILED, "error": "no such column", "sha256": None}
LATER = NOW + timedelta(days=1)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


def with_receiver(context: NotifierContext, receiver: WebhookReceiver, **more: str) -> NotifierContext:
    values = {
        "WAYBILL_WEBHOOK_URL": receiver.url,
        "WAYBILL_WEBHOOK_SECRET": SECRET,
        "WAYBILL_SLACK_WEBHOOK_URL": receiver.url,
        "WAYBILL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    settings = load(values | more)
    store = Notices(
        context.engine,
        retry_for=timedelta(days=7),
        first_delay=timedelta(seconds=5),
        lease=timedelta(seconds=60),
        channels=list_channels(settings),
    )
    return replace(context, notices=store, webhook=open_webhook(settings), slack=open_slack(settings))


def claim(context: NotifierContext, channel: Channel, **changes: Any) -> Notice:
    context.notices.record(completion(**changes), NOW)
    claimed = context.notices.claim(context.notices.find_due(LATER, channel, limit=1)[0], LATER)
    assert claimed is not None
    return claimed


def try_once(context: NotifierContext, channel: Channel, **changes: Any) -> Attempt:
    return attempt(context, claim(context, channel, **changes), NOW)


def test_the_webhook_has_no_link_unless_the_settings_say_so(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver
) -> None:
    add_export(engine)
    links = Links("https://exports.example.com", [b"k" * 32])
    with_link = with_receiver(context, receiver, WAYBILL_WEBHOOK_LINK="true")

    ended = try_once(with_receiver(context, receiver), Channel.WEBHOOK)
    try_once(with_link, Channel.WEBHOOK, attempt=2, event_id="e2")
    try_once(replace(with_link, links=links), Channel.WEBHOOK, attempt=3, event_id="e3")

    assert ended == Attempt(NoticeOutcome.SENT, message_id("event-1"))
    without, signed, own = (json.loads(each.body)["data"] for each in receiver.requests)
    assert "url" not in without
    assert signed["url"] == URL
    assert own["url"] == links.write("project-1", "export-1")


@pytest.mark.parametrize(
    ("export", "event"),
    [
        ({"project_id": "project-2"}, {}),
        ({"status": "CANCELLED"}, {}),
        ({"expires_at": NOW}, {}),
        ({"url": "javascript:alert(1)"}, {}),
        ({}, FAILED),
        ({"status": "FAILED"}, FAILED),
    ],
)
def test_the_webhook_has_no_link_to_a_file_that_is_not_there(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver, *, export: Any, event: Any
) -> None:
    add_export(engine, **export)

    ended = try_once(with_receiver(context, receiver, WAYBILL_WEBHOOK_LINK="true"), Channel.WEBHOOK, **event)

    assert ended.outcome is NoticeOutcome.SENT
    assert json.loads(receiver.requests[0].body)["data"]["url"] is None


def test_slack_gets_the_name_and_the_page_but_neither_a_link_nor_a_user(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver
) -> None:
    add_export(engine)
    context = replace(
        with_receiver(context, receiver),
        nextauth_url="https://langfuse.example.com",
        links=Links("https://exports.example.com", [b"k" * 32]),
    )

    assert try_once(context, Channel.SLACK).outcome is NoticeOutcome.SENT

    text = json.loads(receiver.requests[0].body)["text"]
    assert "traces of September" in text
    assert "https://langfuse.example.com/project/project-1/settings/exports" in text
    assert "exports.example.com/d/" not in text
    assert "files.example.com" not in text
    assert "@" not in text


@pytest.mark.parametrize(
    ("export", "why"),
    [
        ({"id": "export-2"}, "the export no longer exists"),
        ({"status": "QUEUED"}, "the export is QUEUED now"),
        ({"status": "CANCELLED"}, "the export is CANCELLED now"),
    ],
)
def test_slack_gets_no_message_about_an_export_that_has_changed(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver, export: Any, why: str
) -> None:
    add_export(engine, **export)

    assert try_once(with_receiver(context, receiver), Channel.SLACK) == Attempt(NoticeOutcome.SKIPPED, why)
    assert receiver.connections == 0


@pytest.mark.parametrize("channel", [Channel.WEBHOOK, Channel.SLACK])
def test_each_answer_has_its_outcome(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver, channel: Channel
) -> None:
    add_export(engine)
    context = with_receiver(context, receiver)
    receiver.script = [answer_status(500), cut, answer_status(410), answer_status(200)]

    outcomes = [try_once(context, channel, attempt=number, event_id=f"e{number}").outcome for number in range(4)]

    assert outcomes == [
        NoticeOutcome.RETRIED,
        NoticeOutcome.UNANSWERED,
        NoticeOutcome.FAILED,
        NoticeOutcome.SENT,
    ]


def test_each_attempt_has_the_same_id_and_its_own_timestamp(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver
) -> None:
    add_export(engine)
    context = with_receiver(context, receiver)
    receiver.script = [answer_status(500)]
    first = claim(context, Channel.WEBHOOK)

    settle(context.notices, first, attempt(context, first, NOW), NOW)
    again = context.notices.claim(context.notices.find_due(LATER, Channel.WEBHOOK, limit=1)[0], LATER)
    assert again is not None
    attempt(context, again, NOW + timedelta(minutes=1))

    one, two = (each.headers for each in receiver.requests)
    assert one["webhook-id"] == two["webhook-id"]
    assert int(two["webhook-timestamp"]) - int(one["webhook-timestamp"]) == 60


def test_a_notifier_that_lost_its_lease_sends_nothing(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver
) -> None:
    add_export(engine)
    context = with_receiver(context, receiver)
    suspended = claim(context, Channel.WEBHOOK)
    later = LATER + timedelta(days=1)
    assert context.notices.claim(context.notices.find_due(later, Channel.WEBHOOK, limit=1)[0], later) is not None

    ended = attempt(context, suspended, NOW)

    assert (ended.outcome, ended.detail) == (NoticeOutcome.RETRIED, "another notifier has taken the notice over")
    assert receiver.connections == 0


def test_logs_and_reasons_contain_no_url_and_no_secret(
    engine: Engine, context: NotifierContext, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    add_export(engine)
    caplog.set_level(logging.DEBUG)
    context = with_receiver(context, receiver)
    receiver.script = [answer_status(302, headers=f"Location: {receiver.url}\r\n"), cut, answer_status(410)]
    for number in range(4):
        for channel in (Channel.WEBHOOK, Channel.SLACK):
            claimed = claim(context, channel, attempt=number, event_id=f"e{number}-{channel}")
            settle(context.notices, claimed, attempt(context, claimed, NOW), NOW)

    text = "".join(str(each.__dict__) + each.getMessage() for each in caplog.records) + repr(context)
    assert "the receiver of WAYBILL_SLACK_WEBHOOK_URL" in text
    assert not any(secret in text for secret in ("hush", "/hook", SECRET, SECRET.removeprefix("whsec_")))
