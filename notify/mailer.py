"""Declares what an attempt needs of an email service, and the errors that say whether to retry."""

from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol

from notify.address import EmailAddress


class Undeliverable(Exception):
    """The service refuses the address or the message: don't retry; the text says which and contains no address."""


class Unanswered(Exception):
    """The service received the message but didn't respond: retry rarely, because the email may arrive twice."""


@dataclass(frozen=True)
class Envelope:
    """Who sends an email to whom, for the email service."""

    sender: EmailAddress
    recipient: EmailAddress


class Mailer(Protocol):
    """Sends emails; each attempt calls it in a thread of its own."""

    def send(self, envelope: Envelope, message: EmailMessage, fence: Callable[[], None]) -> None:
        """Send the email to the envelope's recipient; it returns once the service has accepted the email.

        `fence` is called right before the message itself is sent, and raises to prevent that.
        Raises Unavailable if the email was certainly not accepted and a retry may succeed, Undeliverable or Unanswered.
        """

    def check(self, sender: EmailAddress) -> list[str]:
        """Test what an email needs, without sending one; raises Unavailable with what does not work.

        Returns one sentence for each thing that may prevent emails, or that could not be tried.
        """
