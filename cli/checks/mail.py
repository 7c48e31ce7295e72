"""Finds why emails can't be sent."""

from config.errors import Unavailable
from config.settings import Settings


class Unused(Exception):
    """No emails are to be sent; the text says which settings are missing for that."""


def find_problems(settings: Settings) -> list[str]:
    """Log in to the mail server and name the sender, without an email; raises Unused if no emails are to be sent."""
    from notify import smtp
    from notify.deliver import read_transport

    sender, url = settings.email_from_address, settings.smtp_connection_url
    if sender is None and url is None:
        raise Unused("EMAIL_FROM_ADDRESS and SMTP_CONNECTION_URL are not set: no emails are sent")
    transport = read_transport(settings)
    if transport is None:
        missing = "EMAIL_FROM_ADDRESS" if sender is None else "SMTP_CONNECTION_URL"
        return [f"{missing} is missing: no emails are sent without it"]
    try:
        smtp.check(transport.server, transport.sender.address)
    except Unavailable as error:
        return [str(error)]
    return []
