"""Finds why emails can't be sent."""

from dataclasses import dataclass

from config.errors import Unavailable
from config.settings import Settings


class Unused(Exception):
    """No emails are to be sent; the text says which settings are missing for that."""


@dataclass(frozen=True)
class MailReport:
    """What prevents emails, and what may prevent them, one sentence each."""

    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def examine(settings: Settings) -> MailReport:
    """Try the email service, but send nothing; raises Unused if no emails are to be sent."""
    from notify.deliver import read_transport

    sender, url = settings.email_from_address, settings.smtp_connection_url
    if sender is None and url is None:
        raise Unused("EMAIL_FROM_ADDRESS and SMTP_CONNECTION_URL are not set: no emails are sent")
    transport = read_transport(settings)
    if transport is None:
        missing = "EMAIL_FROM_ADDRESS" if sender is None else "SMTP_CONNECTION_URL"
        return MailReport((f"{missing} is missing: no emails are sent without it",))
    try:
        return MailReport(doubts=tuple(transport.mailer.check(transport.sender.address)))
    except Unavailable as error:
        return MailReport((str(error),))
