"""Composes the email about one finished export from the templates: subject, text and HTML."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from config.events import ExportFinished, Status
from config.settings import Misconfigured
from notify.address import EmailAddress, NotAnAddress, parse_address
from notify.formatting import end_sentence, format_duration, format_instant, format_rows, format_size, one_line
from notify.look import Look

FROM_NAME = "Data exports"
NO_REASON = "An internal error occurred"
NAME_LIMIT = 120
REASON_LIMIT = 1000
ADDRESS_LIMIT = 320
ID_LIMIT = 512
IGNORED_LIMIT = 1200
NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")


@dataclass(frozen=True)
class Sender:
    """The sender of all emails: the name that people see, and the address."""

    name: str
    address: EmailAddress


@dataclass(frozen=True)
class EmailContent:
    """What an email says besides the numbers of the event, and to whom; `url` and `page` are safe links.

    `may_end_early` says that the link may stop working before `expires_at`, `columns_chosen` that the query names the
    columns of the file.
    """

    recipient: EmailAddress
    user_name: str | None
    export_name: str
    url: str | None
    page: str | None
    expires_at: datetime | None
    may_end_early: bool = False
    ignored: str | None = None
    columns_chosen: bool = False


PLAIN = Look()


def compose_email(
    event: ExportFinished, content: EmailContent, *, sender: Sender, now: datetime, look: Look = PLAIN
) -> EmailMessage:
    """Render the email.

    The same event has the same Message-ID, so that a receiver can recognize a repeated email. The headers are for
    people; the envelope is made of the same addresses, and never of headers.
    """
    rendered = look.templates.render(event.status, _variables(event, content, now, look))
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(sender.name, sender.address.local, sender.address.domain)
    message["To"] = Address("", content.recipient.local, content.recipient.domain)
    if look.reply_to is not None:
        message["Reply-To"] = Address("", look.reply_to.local, look.reply_to.domain)
    message["Subject"] = one_line(rendered.subject, limit=NAME_LIMIT)
    message["Date"] = format_datetime(now.astimezone(UTC))
    message["Message-ID"] = message_id(event.event_id, sender)
    message["Auto-Submitted"] = "auto-generated"
    # Exchange does not know Auto-Submitted.
    message["X-Auto-Response-Suppress"] = "All"
    # Quoted-printable is ASCII with short lines, which every server on the way accepts.
    message.set_content(rendered.text, cte="quoted-printable")
    message.add_alternative(rendered.html, subtype="html", cte="quoted-printable")
    return message


def message_id(event_id: str, sender: Sender) -> str:
    """Return the Message-ID of the email about an event, in the sender's domain."""
    return f"<{hashlib.sha256(event_id.encode()).hexdigest()[:40]}@{sender.address.domain}>"


def read_sender(given: str) -> Sender:
    """Read EMAIL_FROM_ADDRESS: an address, or a name and then the address in <>; raises Misconfigured."""
    named = NAMED.fullmatch(given.strip())
    name, address = (named["name"], named["address"]) if named else ("", given.strip())
    try:
        parsed = parse_address(address)
    except NotAnAddress as error:
        raise Misconfigured([f"EMAIL_FROM_ADDRESS is not an email address: {error}"]) from error
    return Sender(one_line(_unquote(name), limit=NAME_LIMIT) or FROM_NAME, parsed)


def _unquote(name: str) -> str:
    """Return a name without the quotes and backslashes that it needs in a header."""
    bare = name.strip()
    return re.sub(r"\\(.)", r"\1", bare[1:-1]) if re.fullmatch(r'".*"', bare, re.DOTALL) else bare


def _variables(event: ExportFinished, content: EmailContent, now: datetime, look: Look) -> dict[str, object]:
    expires, language = content.expires_at, look.language
    return {
        **look.variables,
        "user_name": one_line(content.user_name, limit=NAME_LIMIT),
        "export_name": one_line(content.export_name, limit=NAME_LIMIT),
        "recipient": one_line(str(content.recipient), limit=ADDRESS_LIMIT),
        "url": content.url,
        "page": content.page,
        "count": language.format_count(event.rows),
        "rows": format_rows(event.rows, language),
        "size": format_size(event.bytes, language),
        "format": one_line(event.format, limit=NAME_LIMIT),
        "sha256": one_line(event.sha256, limit=NAME_LIMIT),
        "truncated": event.truncated,
        "ignored": one_line(content.ignored, limit=IGNORED_LIMIT),
        "columns_chosen": content.columns_chosen,
        "reason": end_sentence(one_line(event.error, limit=REASON_LIMIT) or language.translate(NO_REASON)),
        "project_id": one_line(event.project_id, limit=ID_LIMIT),
        "export_id": one_line(event.batch_export_id, limit=ID_LIMIT),
        "lifetime": format_duration(expires - now, language) if expires else "",
        "may_end_early": content.may_end_early,
        "expires": format_instant(expires, language) if expires else "",
        "finished": format_instant(event.finished_at, language),
    }


def check_templates(look: Look) -> None:
    """Render an email of each kind; raises Misconfigured, with one sentence for each template that fails."""
    problems: dict[str, None] = {}
    for event, content in _make_samples():
        variables = _variables(event, content, event.finished_at, look)
        problems |= dict.fromkeys(look.templates.find_problems(event.status, variables))
    if problems:
        raise Misconfigured(list(problems))


def _make_samples() -> Iterator[tuple[ExportFinished, EmailContent]]:
    """Yield events and contents with and without everything that an email may lack."""
    finished, recipient = datetime(2026, 1, 2, 3, 4, tzinfo=UTC), EmailAddress("user", "example.com")
    full = EmailContent(
        recipient=recipient,
        user_name="Ada Lovelace",
        export_name="traces",
        url="https://example.com/d/token",
        page="https://example.com/exports",
        expires_at=finished + timedelta(hours=24),
        ignored="key",
    )
    bare = replace(full, user_name=None, url=None, expires_at=None, ignored=None, columns_chosen=True)
    alone = replace(full, page=None, may_end_early=True)
    for status, content in itertools.product((Status.COMPLETED, Status.FAILED), (full, bare, alone)):
        yield (
            ExportFinished(
                event_id="event",
                project_id="project",
                batch_export_id="export",
                attempt=1,
                status=status,
                table_name="traces",
                format="CSV",
                rows=1_000,
                bytes=100_000,
                sha256=None if content is bare else 64 * "0",
                truncated=content is full,
                started_at=finished,
                finished_at=finished,
                expires_at=content.expires_at,
                error=None if content is bare else "The reason",
            ),
            content,
        )
