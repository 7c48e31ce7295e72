"""Hands one email to Amazon SES, and sorts the failures by whether to retry."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from config.errors import Unavailable
from notify.address import EmailAddress
from notify.mailer import Envelope, Unanswered, Undeliverable
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60

_REJECTED = (Undeliverable, "SES rejected the message ({code})")
_LIMITED = (Unavailable, "SES limits the emails of this account ({code})")
_SUSPENDED = (Unavailable, "SES has suspended the sending of emails in {region} ({code})")
_NOT_LOGGED_IN = (
    Unavailable,
    "SES rejected the credentials ({code}): do they allow ses:SendEmail and ses:SendRawEmail?",
)
_NOT_VERIFIED = (
    Unavailable,
    (
        "SES sends no email from or to an address that is not verified ({code}): verify EMAIL_FROM_ADDRESS or its "
        "domain in {region}; in the sandbox, each recipient must be verified, too"
    ),
)
_NO_MAIL_FROM = (Unavailable, "SES rejected EMAIL_FROM_ADDRESS ({code}): verify its MAIL FROM domain in {region}")
_NOT_ACCEPTED = (Unavailable, "SES did not accept the email ({code})")
_UNKNOWN = (Unanswered, "SES may have received the email, but did not say whether it accepts it ({code})")

_Fault = tuple[type[Unavailable | Undeliverable | Unanswered], str]
_BY_CODE: dict[str, _Fault] = {
    "MessageRejected": _REJECTED,
    "BadRequestException": _REJECTED,
    "MailFromDomainNotVerifiedException": _NO_MAIL_FROM,
    "AccountSuspendedException": _SUSPENDED,
    "SendingPausedException": _SUSPENDED,
    "LimitExceededException": _LIMITED,
    "Throttling": _LIMITED,
    "ThrottlingException": _LIMITED,
}
_BY_STATUS: dict[int, _Fault] = {
    HTTPStatus.UNAUTHORIZED: _NOT_LOGGED_IN,
    HTTPStatus.FORBIDDEN: _NOT_LOGGED_IN,
    HTTPStatus.TOO_MANY_REQUESTS: _LIMITED,
    HTTPStatus.SERVICE_UNAVAILABLE: _NOT_ACCEPTED,
}
_NO_URL = (
    "SES can't be used, because a variable of AWS is not a valid URL: are AWS_ENDPOINT_URL and "
    "AWS_CONTAINER_CREDENTIALS_FULL_URI right, if they are set?"
)
_CODE = re.compile(r"[\w.-]{1,80}", re.ASCII)
_NOT_VERIFIED_TEXT = "not verified"
"""How SES says that it does not know an address; its code is the same for a message that it refuses."""


@dataclass(frozen=True)
class SesRegion:
    """SES in a region, with the credentials that AWS's default chain finds.

    `authorities` is the file with the certificate authorities to trust; None means those that botocore trusts.
    """

    region: str
    authorities: str | None = None

    def send(self, envelope: Envelope, message: EmailMessage, fence: Callable[[], None] = lambda: None) -> None:
        """Send the email to the envelope's recipient; it returns once SES has accepted the email.

        `fence` is called right before the email is sent, and raises to prevent that.
        Raises Unavailable (no connection, no credentials or rights, a limit, an address that is not verified),
        Undeliverable (a message or an address that SES refuses) or Unanswered (no clear response).
        """
        if not envelope.sender.local.isascii():
            raise Unavailable("EMAIL_FROM_ADDRESS is not ASCII, and SES does not support SMTPUTF8")
        if not envelope.recipient.local.isascii():
            raise Undeliverable("the address is not ASCII, and SES does not support SMTPUTF8")
        client = _open(self.region, self.authorities)
        data = message.as_bytes(policy=SMTP)
        fence()
        with _translated_faults(self.region):
            answer = client.send_email(
                FromEmailAddress=str(envelope.sender),
                Destination={"ToAddresses": [str(envelope.recipient)]},
                Content={"Raw": {"Data": data}},
            )
        if not answer.get("MessageId"):  # a proxy may have answered
            raise Unanswered("SES may have received the email, but did not give it an id")

    def check(self, sender: EmailAddress) -> list[str]:
        """Ask SES whether it sends emails from this sender; no email is sent.

        Raises Unavailable if it does not. Returns one sentence for each possible problem: the sandbox, a
        review, and what the credentials may not read.
        """
        client = _open(self.region, self.authorities)
        try:
            with _translated_faults(self.region):
                return [*_check_account(client, self.region), *_check_sender(client, sender, self.region)]
        except Unanswered as error:
            raise Unavailable(f"SES in {self.region} does not respond: is it reachable from here?") from error


def _open(region: str, authorities: str | None) -> Any:
    """Return the client of a region; raises Unavailable without credentials, when nothing has been sent."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # it ships no types

    try:
        session, client = _open_client(region, authorities)
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()  # renews those of a role
    except (BotoCoreError, ClientError, OSError) as error:
        raise Unavailable(
            f"there are no AWS credentials for SES ({type(error).__name__}): is the role of the process right?"
        ) from error
    except ValueError as error:  # its text may repeat a variable of AWS
        raise Unavailable(_NO_URL) from error
    if credentials is None:
        raise Unavailable("there are no AWS credentials for SES: does the process have a role?")
    return client


@lru_cache(maxsize=1)
def _open_client(region: str, authorities: str | None) -> tuple[Any, Any]:
    # botocore takes memory that a notifier with an SMTP server does not need.
    from botocore.config import Config  # type: ignore[import-untyped] # it ships no types
    from botocore.session import Session  # type: ignore[import-untyped] # the same

    session = Session()
    # botocore would send an email again whose response was lost.
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1})
    return session, session.create_client("sesv2", region_name=region, config=config, verify=authorities)


def _check_account(client: Any, region: str) -> Iterator[str]:
    account = _read(client.get_account)
    if account is None:
        yield "whether SES sends emails could not be checked: allow ses:GetAccount for that"
        return
    if not account.get("SendingEnabled", True) or account.get("EnforcementStatus") == "SHUTDOWN":
        raise Unavailable(f"SES has suspended the sending of emails in {region}: see the account in its console")
    if account.get("EnforcementStatus") == "PROBATION":
        yield f"SES is reviewing the account in {region}, and may suspend the sending of emails"
    if not account.get("ProductionAccessEnabled", True):
        yield f"SES in {region} is in the sandbox and sends to verified addresses only: request production access"


def _check_sender(client: Any, sender: EmailAddress, region: str) -> Iterator[str]:
    """Look for the address, its domain and the domains above: one that is verified is enough."""
    labels = sender.domain.split(".")
    domains = [".".join(labels[number:]) for number in range(len(labels) - 1)]
    for identity in (str(sender), *domains):
        try:
            found = _read(client.get_email_identity, EmailIdentity=identity)
        except client.exceptions.NotFoundException:
            continue
        if found is None:
            yield "whether SES knows EMAIL_FROM_ADDRESS could not be checked: allow ses:GetEmailIdentity for that"
            return
        if found.get("VerifiedForSendingStatus"):
            return
    raise Unavailable(f"EMAIL_FROM_ADDRESS is not verified in SES in {region}: verify it or its domain {sender.domain}")


def _read(call: Callable[..., dict[str, Any]], **parameters: str) -> dict[str, Any] | None:
    """Return the answer of a call, or None if the credentials may not make it."""
    from botocore.exceptions import ClientError

    try:
        return call(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"].startswith("AccessDenied"):
            return None
        raise


@contextmanager
def _translated_faults(region: str) -> Iterator[None]:
    from botocore import exceptions  # type: ignore[import-untyped] # it ships no types
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped] # the same

    try:
        yield
    except exceptions.ClientError as error:
        raise _translate(error.response, region) from error
    except (
        exceptions.EndpointConnectionError,
        exceptions.ConnectTimeoutError,
        exceptions.ProxyConnectionError,
        exceptions.NoCredentialsError,
        exceptions.NoRegionError,
    ) as error:
        raise Unavailable(f"SES in {region} is unavailable ({explain_fault(error)}): is the region right?") from error
    except (
        *(exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError),
        # botocore does not check what it reads: another kind of server may have answered.
        *(AttributeError, LookupError, TypeError, UnicodeDecodeError),
    ) as error:
        reason = explain_fault(error)
        if (remedy := CERTIFICATE_REMEDIES.get(reason)) is not None:
            raise Unavailable(f"SES in {region} is unavailable ({reason}): {remedy}") from error
        raise Unanswered(f"SES may have received the email, but did not respond ({reason})") from error
    except ValueError as error:  # nothing has been sent
        raise Unavailable(_NO_URL) from error


def _translate(response: dict[str, Any], region: str) -> Exception:
    """Return the error for a response; its text may contain addresses, so only its code is repeated."""
    given = str(response["Error"]["Code"])
    code, text = given if _CODE.fullmatch(given) else "no code", str(response["Error"].get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    found = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if found is None:
        found = _UNKNOWN if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _NOT_ACCEPTED
    if found is _REJECTED and _NOT_VERIFIED_TEXT in text:
        found = _NOT_VERIFIED
    kind, what = found
    return kind(what.format(code=code, region=region))
