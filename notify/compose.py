"""Composes the email about one finished export from the templates: subject, text and HTML."""

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
from notify.formatting import format_duration, format_instant, format_rows, format_size, one_line
from notify.smtp import Undeliverable

TEMPLATES = {Status.COMPLETED: "export_ready", Status.FAILED: "export_failed"}
FROM_NAME = "Data exports"
NO_REASON = "An internal error occurred"
NAME_LIMIT = 120
REASON_LIMIT = 1000
ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f<>()\[\],;:\\\"@]+@[^\s\x00-\x1f\x7f<>()\[\],;:\\\"@]+")
ADDRESS_LIMIT = 320


@dataclass(frozen=True)
class EmailContent:
    """What an email says besides the numbers of the event, and to whom; `url` and `page` are safe links."""

    recipient: str
    user_name: str | None
    export_name: str
    url: str | None
    page: str | None
    expires_at: datetime | None


def compose_email(event: ExportFinished, content: EmailContent, *, sender: str, now: datetime) -> EmailMessage:
    """Render the email; `sender` is EMAIL_FROM_ADDRESS.

    The same event has the same Message-ID, so that a receiver can recognize a repeated email. Raises Undeliverable
    if the recipient's address is not valid.
    """
    recipient = _ascii_domain(content.recipient)
    if recipient is None:
        raise Undeliverable("the user's address is not an email address")
    template, variables = TEMPLATES[event.status], _variables(event, content, now)
    message = EmailMessage(policy=SMTP)
    message["From"] = _parse_sender(sender)
    message["To"] = recipient
    message["Subject"] = one_line(_render(f"{template}/subject.txt", variables), limit=NAME_LIMIT)
    message["Date"] = format_datetime(now.astimezone(UTC))
    message["Message-ID"] = message_id(event.event_id, sender)
    message["Auto-Submitted"] = "auto-generated"
    # Quoted-printable is ASCII with short lines, which every server on the way accepts.
    message.set_content(_render(f"{template}/body.txt", variables), cte="quoted-printable")
    message.add_alternative(_render(f"{template}/body.html", variables), subtype="html", cte="quoted-printable")
    return message


def message_id(event_id: str, sender: str) -> str:
    """Return the Message-ID of the email about an event, in the sender's domain."""
    domain = _parse_sender(sender).domain
    return f"<{hashlib.sha256(event_id.encode()).hexdigest()[:40]}@{domain}>"


def sender_address(sender: str) -> str:
    """Return the address in EMAIL_FROM_ADDRESS, which may follow a name; raise Misconfigured if there is none."""
    return _parse_sender(sender).addr_spec


def _parse_sender(given: str) -> Address:
    name, bare = parseaddr(given)
    address = _ascii_domain(bare)
    if address is None:
        raise Misconfigured(["EMAIL_FROM_ADDRESS is not an email address"])
    user, _, domain = address.rpartition("@")
    return Address(one_line(name, limit=NAME_LIMIT) or FROM_NAME, user, domain)


def _ascii_domain(given: str) -> str | None:
    """Return the address with an ASCII domain, or None if it is not valid; the part before the @ may need SMTPUTF8."""
    address = given.strip()
    if len(address) > ADDRESS_LIMIT or not ADDRESS.fullmatch(address):
        return None
    user, _, domain = address.rpartition("@")
    try:
        return f"{user}@{domain.encode('idna').decode()}"
    except UnicodeError:
        return None


def _variables(event: ExportFinished, content: EmailContent, now: datetime) -> dict[str, object]:
    expires = content.expires_at
    return {
        "user_name": one_line(content.user_name, limit=NAME_LIMIT),
        "export_name": one_line(content.export_name, limit=NAME_LIMIT),
        "recipient": one_line(content.recipient, limit=ADDRESS_LIMIT),
        "url": content.url,
        "page": content.page,
        "count": f"{event.rows:,}",
        "rows": format_rows(event.rows),
        "size": format_size(event.bytes),
        "format": one_line(event.format, limit=NAME_LIMIT),
        "sha256": one_line(event.sha256, limit=NAME_LIMIT),
        "truncated": event.truncated,
        "reason": one_line(event.error, limit=REASON_LIMIT) or NO_REASON,
        "lifetime": format_duration(expires - now) if expires else "",
        "expires": format_instant(expires) if expires else "",
        "finished": format_instant(event.finished_at),
    }


def _render(name: str, variables: dict[str, object]) -> str:
    return _templates().get_template(name).render(variables)


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
