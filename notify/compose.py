"""Composes the mail for one finished export from the templates: subject, text and HTML."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from config.events import ExportFinished, Status
from config.settings import Misconfigured
from notify import formatting as text
from notify.errors import Undeliverable

TEMPLATES = {Status.COMPLETED: "export_ready", Status.FAILED: "export_failed"}
FROM_NAME = "Data exports"
NO_REASON = "An internal error occurred"
NAME_LIMIT = 120
REASON_LIMIT = 1000
ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f<>()\[\],;:\\\"@]+@[^\s\x00-\x1f\x7f<>()\[\],;:\\\"@]+")
ADDRESS_LIMIT = 320


@dataclass(frozen=True)
class Letter:
    """What one mail says besides the event's figures, and to whom; `url` and `page` have been through `text.link`."""

    recipient: str
    user_name: str | None
    export_name: str
    url: str | None
    page: str | None
    expires_at: datetime | None


def compose(event: ExportFinished, letter: Letter, *, sender: str, now: datetime) -> EmailMessage:
    """Render the mail; `sender` is EMAIL_FROM_ADDRESS.

    The same event gives the same Message-ID, so that a receiver can tell a repeated mail. Raises Undeliverable when
    the recipient's address is none.
    """
    recipient = _address(letter.recipient)
    if recipient is None:
        raise Undeliverable("the user's address is not a mail address")
    template, context = TEMPLATES[event.status], _context(event, letter, now)
    message = EmailMessage(policy=SMTP)
    message["From"] = _sender(sender)
    message["To"] = recipient
    message["Subject"] = text.one_line(_render(f"{template}/subject.txt", context), limit=NAME_LIMIT)
    message["Date"] = format_datetime(now.astimezone(UTC))
    message["Message-ID"] = message_id(event.event_id, sender)
    message["Auto-Submitted"] = "auto-generated"
    # Quoted-printable is ASCII with short lines, which every server on the way takes.
    message.set_content(_render(f"{template}/body.txt", context), cte="quoted-printable")
    message.add_alternative(_render(f"{template}/body.html", context), subtype="html", cte="quoted-printable")
    return message


def message_id(event_id: str, sender: str) -> str:
    """Give the Message-ID of the mail about an event, in the sender's domain."""
    domain = _sender(sender).domain
    return f"<{hashlib.sha256(event_id.encode()).hexdigest()[:40]}@{domain}>"


def sender_address(sender: str) -> str:
    """Give the address within EMAIL_FROM_ADDRESS, which may have a name before it; raises Misconfigured if none."""
    return _sender(sender).addr_spec


def _sender(given: str) -> Address:
    name, bare = parseaddr(given)
    address = _address(bare)
    if address is None:
        raise Misconfigured(["EMAIL_FROM_ADDRESS is not a mail address"])
    user, _, domain = address.rpartition("@")
    return Address(text.one_line(name, limit=NAME_LIMIT) or FROM_NAME, user, domain)


def _address(given: str) -> str | None:
    """Give the address with its domain in ASCII, so that only names before the @ need a modern server."""
    address = given.strip()
    if len(address) > ADDRESS_LIMIT or not ADDRESS.fullmatch(address):
        return None
    user, _, domain = address.rpartition("@")
    try:
        return f"{user}@{domain.encode('idna').decode()}"
    except UnicodeError:
        return None


def _context(event: ExportFinished, letter: Letter, now: datetime) -> dict[str, object]:
    expires = letter.expires_at
    return {
        "user_name": text.one_line(letter.user_name, limit=NAME_LIMIT),
        "export_name": text.one_line(letter.export_name, limit=NAME_LIMIT),
        "recipient": text.one_line(letter.recipient, limit=ADDRESS_LIMIT),
        "url": letter.url,
        "page": letter.page,
        "count": f"{event.rows:,}",
        "rows": text.rows(event.rows),
        "size": text.size(event.bytes),
        "format": text.one_line(event.format, limit=NAME_LIMIT),
        "sha256": text.one_line(event.sha256, limit=NAME_LIMIT),
        "truncated": event.truncated,
        "reason": text.one_line(event.error, limit=REASON_LIMIT) or NO_REASON,
        "lifetime": text.span(expires - now) if expires else "",
        "expires": text.instant(expires) if expires else "",
        "finished": text.instant(event.finished_at),
    }


def _render(name: str, context: dict[str, object]) -> str:
    return _templates().get_template(name).render(context)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("notify"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
