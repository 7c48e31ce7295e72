"""Makes one attempt at one notice, and records how it ended."""

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config import errors
from config.events import read_finished
from config.labels import NoticeOutcome
from config.links import Links
from config.settings import Settings
from notify import compose as mail
from notify import formatting as text
from notify import recipient, smtp
from notify.errors import Unanswered, Unavailable, Undeliverable
from notify.notices import Notice, Notices
from runtime.logs import about
from runtime.tracing import Tracer, trace_id

logger = logging.getLogger(__name__)


LEVELS = {NoticeOutcome.SENT: logging.INFO, NoticeOutcome.FAILED: logging.ERROR}


@dataclass(frozen=True)
class Post:
    """How mail leaves: through which server, and from whom."""

    server: smtp.Server
    sender: str


@dataclass(frozen=True)
class Desk:
    """All that an attempt needs; without `post` nobody is told, and every notice is skipped.

    Without `links`, mails link to the URL that the export's row has.
    """

    engine: Engine
    notices: Notices
    post: Post | None
    nextauth_url: str | None
    links: Links | None
    tracer: Tracer = field(default_factory=Tracer)


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended: `detail` is the Message-ID of a mail that was sent, else the reason."""

    outcome: NoticeOutcome
    detail: str


def read_post(settings: Settings) -> Post | None:
    """Read the mail settings, None if a necessary one is not set; raises Misconfigured if one is wrong."""
    if settings.email_from_address is None or settings.smtp_connection_url is None:
        return None
    mail.sender_address(settings.email_from_address)
    return Post(smtp.parse_server(settings.smtp_connection_url), settings.email_from_address)


def attempt(desk: Desk, notice: Notice, now: datetime) -> Attempt:
    """Tell the person, if there is one to tell; every trouble is an outcome, a bug is one to be retried."""
    with desk.tracer.span("notice", notice.traceparent) as span, about(_extra(notice)):
        ended = _attempt(desk, notice, now)
        span.note(**_extra(notice), outcome=ended.outcome)
    return ended


def _attempt(desk: Desk, notice: Notice, now: datetime) -> Attempt:
    try:
        return _tell(desk, notice, now)
    except Undeliverable as error:
        return Attempt(NoticeOutcome.FAILED, str(error))
    except Unavailable as error:
        return Attempt(NoticeOutcome.RETRIED, str(error))
    except Unanswered as error:
        return Attempt(NoticeOutcome.UNANSWERED, str(error))
    except Exception as error:
        logger.exception("a notice could not be made: this is a bug", extra=_extra(notice))
        return Attempt(NoticeOutcome.RETRIED, f"internal error ({type(error).__name__})")


def settle(notices: Notices, notice: Notice, ended: Attempt, now: datetime) -> NoticeOutcome | None:
    """Record how an attempt ended; gives the outcome to count, or None if another notifier has the notice by now."""
    outcome = ended.outcome
    if outcome in {NoticeOutcome.RETRIED, NoticeOutcome.UNANSWERED} and notices.is_last(notice, now):
        outcome = NoticeOutcome.FAILED
    if outcome is NoticeOutcome.SENT:
        recorded = notices.sent(notice, ended.detail, now)
    elif outcome is NoticeOutcome.SKIPPED:
        recorded = notices.skip(notice, ended.detail)
    elif outcome is NoticeOutcome.FAILED:
        recorded = notices.fail(notice, ended.detail)
    elif outcome is NoticeOutcome.UNANSWERED:
        recorded = notices.postpone(notice, ended.detail, now, longest=None)
    else:
        recorded = notices.postpone(notice, ended.detail, now)
    if not recorded:
        logger.warning("a notice was taken over meanwhile", extra=_extra(notice))
        return None
    level = LEVELS.get(outcome, logging.WARNING)
    logger.log(level, "notice %s: %s", outcome, ended.detail, extra=_extra(notice) | {"outcome": outcome})
    return outcome


def _tell(desk: Desk, notice: Notice, now: datetime) -> Attempt:
    began, event = time.monotonic(), read_finished(notice.payload)
    if desk.post is None:
        return Attempt(NoticeOutcome.SKIPPED, "EMAIL_FROM_ADDRESS or SMTP_CONNECTION_URL is not set")
    found = recipient.find(desk.engine, event)
    if found is None:
        return Attempt(NoticeOutcome.SKIPPED, "there is no such export")
    letter = mail.Letter(
        recipient=found.address or "",
        user_name=found.user_name,
        export_name=found.export_name,
        url=text.link(desk.links.write(event.project_id, event.batch_export_id) if desk.links else found.url),
        page=_page(desk.nextauth_url, event.project_id),
        expires_at=found.expires_at,
    )
    if why := recipient.why_not(event, found, letter.url or letter.page, now):
        return Attempt(NoticeOutcome.SKIPPED, why)
    message = mail.compose(event, letter, sender=desk.post.sender, now=now)
    smtp.send(
        desk.post.server,
        message,
        fence=lambda: _hold(desk.notices, notice, now + timedelta(seconds=time.monotonic() - began)),
    )
    return Attempt(NoticeOutcome.SENT, str(message["Message-ID"]))


def _hold(notices: Notices, notice: Notice, now: datetime) -> None:
    """Make sure that the notice is still ours: after a sleep for longer than its lease, another may have sent it."""
    try:
        held = notices.beat(notice, now)
    except (SQLAlchemyError, errors.Unavailable) as error:
        raise Unavailable(f"the database does not answer ({type(error).__name__})") from error
    if not held:
        raise Unavailable("another notifier has taken the notice over")


def _page(nextauth_url: str | None, project_id: str) -> str | None:
    """Give the application's page of exports."""
    return text.link(f"{nextauth_url}/project/{quote(project_id, safe='')}/settings/exports") if nextauth_url else None


def _extra(notice: Notice) -> dict[str, Any]:
    traced = {} if notice.traceparent is None else {"trace_id": trace_id(notice.traceparent)}
    return {
        "event_id": notice.event_id,
        "export_id": notice.export_id,
        "channel": notice.channel,
        "attempt": notice.attempts,
        **traced,
    }
