"""Makes one attempt to deliver one notice, and records its outcome."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from config.errors import Unavailable
from config.events import ExportFinished, Malformed, read_finished
from config.labels import Channel, NoticeOutcome
from config.links import Links
from config.settings import Settings
from config.settings_channels import SLACK_URL, WEBHOOK_URL
from notify.address import EmailAddress, NotAnAddress, parse_address
from notify.compose import PLAIN, EmailContent, Sender, check_templates, compose_email, read_sender
from notify.formatting import safe_link
from notify.look import Look, read_look
from notify.mailer import Envelope, Mailer, Unanswered, Undeliverable
from notify.notice import Notice
from notify.notices import Notices
from notify.open_mailer import open_mailer
from notify.recipient import find_recipient, reason_to_skip
from notify.slack import Slack
from notify.target import choose_link, find_link, find_page
from notify.webhook import Webhook, message_id
from runtime.logs import add_log_fields
from runtime.tracing import Tracer, trace_id

logger = logging.getLogger(__name__)


Fence = Callable[[str], None]
"""Is called with the id of a message right before it is sent, and raises to prevent that."""

LEVELS = {NoticeOutcome.SENT: logging.INFO, NoticeOutcome.FAILED: logging.ERROR}


@dataclass(frozen=True)
class MailTransport:
    """The email service that sends the emails, their sender, and how they look."""

    mailer: Mailer
    sender: Sender
    look: Look = PLAIN


@dataclass(frozen=True)
class NotifierContext:
    """All that an attempt needs; without `transport`, `webhook` or `slack`, notices of that channel are skipped.

    Without `links`, emails link to the URL on the export's row, or to Langfuse's page if that URL ends early.
    """

    engine: Engine
    notices: Notices
    transport: MailTransport | None
    nextauth_url: str | None
    links: Links | None
    tracer: Tracer = field(default_factory=Tracer)
    webhook: Webhook | None = None
    slack: Slack | None = None


@dataclass(frozen=True)
class Attempt:
    """The result of one attempt: `detail` is the id of a message that was sent, else the reason."""

    outcome: NoticeOutcome
    detail: str


def read_transport(settings: Settings) -> MailTransport | None:
    """Read the email settings; None if a required one is not set. Raises Misconfigured if one is wrong."""
    mailer = open_mailer(settings)
    if settings.email_from_address is None or mailer is None:
        return None
    look = read_look(settings)
    check_templates(look)
    return MailTransport(mailer, read_sender(settings.email_from_address), look)


def attempt(context: NotifierContext, notice: Notice, now: datetime) -> Attempt:
    """Send the message of a notice if there is one to send; every failure is an outcome, and a bug is retried."""
    with context.tracer.span("notice", notice.traceparent) as span, add_log_fields(_extra(notice)):
        ended = _attempt(context, notice, now)
        span.note(**_extra(notice), outcome=ended.outcome)
    return ended


def _attempt(context: NotifierContext, notice: Notice, now: datetime) -> Attempt:
    try:
        return _send(context, notice, now)
    except Undeliverable as error:
        return Attempt(NoticeOutcome.FAILED, str(error))
    except Malformed as error:
        return Attempt(NoticeOutcome.FAILED, f"the stored event can't be read: {error}")
    except Unavailable as error:
        return Attempt(NoticeOutcome.RETRIED, str(error))
    except Unanswered as error:
        return Attempt(NoticeOutcome.UNANSWERED, str(error))
    except Exception as error:
        logger.exception("a notice could not be sent because of a bug", extra=_extra(notice))
        return Attempt(NoticeOutcome.BUG, f"internal error ({type(error).__name__})")


def settle(notices: Notices, notice: Notice, ended: Attempt, now: datetime) -> NoticeOutcome | None:
    """Record the result of an attempt; return the outcome to count, or None if another notifier has the notice now."""
    outcome = ended.outcome
    if outcome in {NoticeOutcome.RETRIED, NoticeOutcome.BUG, NoticeOutcome.UNANSWERED} and notices.is_last(notice, now):
        outcome = NoticeOutcome.FAILED
    if not _record(notices, notice, outcome, ended.detail, now):
        logger.warning("another notifier has taken the notice over", extra=_extra(notice))
        return None
    level = LEVELS.get(outcome, logging.WARNING)
    logger.log(level, "notice %s: %s", outcome, ended.detail, extra=_extra(notice) | {"outcome": outcome})
    return outcome


def _record(notices: Notices, notice: Notice, outcome: NoticeOutcome, detail: str, now: datetime) -> bool:
    match outcome:
        case NoticeOutcome.SENT:
            return notices.mark_sent(notice, detail, now)
        case NoticeOutcome.SKIPPED:
            return notices.skip(notice, detail)
        case NoticeOutcome.FAILED:
            return notices.fail(notice, detail)
        case NoticeOutcome.UNANSWERED:
            return notices.postpone_unanswered(notice, detail, now)
        case _:
            return notices.postpone(notice, detail, now)


def _send(context: NotifierContext, notice: Notice, now: datetime) -> Attempt:
    began, event = time.monotonic(), read_finished(notice.payload)

    def fence(name: str) -> None:
        _begin(context.notices, notice, name, now + timedelta(seconds=time.monotonic() - began))

    return SENDERS[notice.channel](context, event, now, fence)


def _send_email(context: NotifierContext, event: ExportFinished, now: datetime, fence: Fence) -> Attempt:
    if context.transport is None:
        return Attempt(NoticeOutcome.SKIPPED, "EMAIL_FROM_ADDRESS or SMTP_CONNECTION_URL is not set")
    recipient = find_recipient(context.engine, event)
    if recipient is None:
        return Attempt(NoticeOutcome.SKIPPED, "the export no longer exists")
    page = find_page(context.nextauth_url, event.project_id)
    recipient = choose_link(context.links, event, recipient, page)
    url = safe_link(recipient.url)
    if reason := reason_to_skip(event, recipient, url or page, now):
        return Attempt(NoticeOutcome.SKIPPED, reason)
    content = EmailContent(
        recipient=_parse_recipient(recipient.address),
        user_name=recipient.user_name,
        export_name=recipient.export_name,
        url=url,
        page=page,
        expires_at=recipient.expires_at,
        may_end_early=recipient.may_end_early,
        ignored=recipient.ignored,
        columns_chosen=recipient.columns_chosen,
    )
    transport = context.transport
    message = compose_email(event, content, sender=transport.sender, now=now, look=transport.look)
    name = str(message["Message-ID"])
    envelope = Envelope(context.transport.sender.address, content.recipient)
    context.transport.mailer.send(envelope, message, fence=lambda: fence(name))
    return Attempt(NoticeOutcome.SENT, name)


def _send_webhook(context: NotifierContext, event: ExportFinished, now: datetime, fence: Fence) -> Attempt:
    if context.webhook is None:
        return Attempt(NoticeOutcome.SKIPPED, f"{WEBHOOK_URL} is not set")
    link = find_link(context.engine, context.links, event, now) if context.webhook.with_link else None
    name = message_id(event.event_id)
    context.webhook.send(event, link, now, fence=lambda: fence(name))
    return Attempt(NoticeOutcome.SENT, name)


def _send_to_slack(context: NotifierContext, event: ExportFinished, _: datetime, fence: Fence) -> Attempt:
    if context.slack is None:
        return Attempt(NoticeOutcome.SKIPPED, f"{SLACK_URL} is not set")
    export = find_recipient(context.engine, event)
    if export is None:
        return Attempt(NoticeOutcome.SKIPPED, "the export no longer exists")
    if export.status != event.status:
        return Attempt(NoticeOutcome.SKIPPED, f"the export is {export.status} now")
    page, name = find_page(context.nextauth_url, event.project_id), message_id(event.event_id)
    context.slack.send(event, export.export_name, page, fence=lambda: fence(name))
    return Attempt(NoticeOutcome.SENT, name)


SENDERS: Mapping[Channel, Callable[[NotifierContext, ExportFinished, datetime, Fence], Attempt]] = {
    Channel.MAIL: _send_email,
    Channel.WEBHOOK: _send_webhook,
    Channel.SLACK: _send_to_slack,
}


def _parse_recipient(address: str | None) -> EmailAddress:
    try:
        return parse_address(address or "")
    except NotAnAddress as error:
        raise Undeliverable(f"the user's address is not an email address: {error}") from error


def _begin(notices: Notices, notice: Notice, message_id: str, now: datetime) -> None:
    """Record that the message is sent now; raise Unavailable if the lease was lost: another may have sent it."""
    if not notices.begin(notice, message_id, now):
        raise Unavailable("another notifier has taken the notice over")


def _extra(notice: Notice) -> dict[str, Any]:
    traced = {} if notice.traceparent is None else {"trace_id": trace_id(notice.traceparent)}
    return {
        "event_id": notice.event_id,
        "export_id": notice.export_id,
        "channel": notice.channel,
        "attempt": notice.attempts,
        **traced,
    }
