"""Hands one email to the SMTP server, and sorts the failures by whether to retry."""

import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from enum import Enum

from config.errors import Unavailable
from notify.address import EmailAddress
from notify.mailer import Envelope, Unanswered, Undeliverable
from notify.smtp_login import log_in, log_in_with_token
from runtime.network import CERTIFICATE_REMEDIES, explain_fault
from runtime.tokens import Token, Tokens

TIMEOUT_SECONDS = 60.0
"""Timeout of every step but the last."""

ANSWER_TIMEOUT_SECONDS = 600.0
"""Timeout of the response to the message itself (RFC 5321, section 4.5.3.2): timing out earlier causes duplicates."""

ENHANCED_STATUS = re.compile(rb"^([245]\.\d{1,3}\.\d{1,3})\b")
GO_ON, TEMPORARY, PERMANENT = 354, 400, 500
IMPLICIT_PORT = 465
POSITIVE = range(200, 300)
"""Codes of acceptance; their other digits say nothing more that matters (RFC 5321, section 4.3.2)."""

LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)


class Encryption(Enum):
    """When the connection is encrypted: from the first byte, by required STARTTLS, by offered STARTTLS, or never."""

    IMPLICIT = "implicit"
    REQUIRED = "required"
    OFFERED = "offered"
    NONE = "none"


@dataclass(frozen=True)
class SmtpServer:
    """The SMTP server that SMTP_CONNECTION_URL names; with `tokens` they replace the password."""

    host: str
    port: int
    encryption: Encryption
    user: str | None = None
    password: str = field(default="", repr=False)
    verify: bool = True
    ehlo: str | None = None
    tokens: Tokens | None = field(default=None, repr=False)

    def send(self, envelope: Envelope, message: EmailMessage, fence: Callable[[], None] = lambda: None) -> None:
        """Send the email to the envelope's recipient; it returns once the server has accepted the email.

        `fence` is called right before the message itself is sent, and raises to prevent that.
        Raises Unavailable (no response, 4xx, or a certificate, login or sender that does not work), Undeliverable (5xx
        for the recipient or the message, or an address that needs SMTPUTF8 which the server lacks), or Unanswered (no
        clear response to the message itself, which the server may have accepted).
        """
        with _translated_faults(self), _session(self) as client:
            policy = _send_envelope(client, envelope)
            data = LEADING_DOT.sub(b"..", message.as_bytes(policy=policy))
            fence()
            client.send(data.removesuffix(b"\r\n") + b"\r\n.\r\n")
            code, text = _read_answer(client)
            if code not in POSITIVE:
                raise smtplib.SMTPDataError(code, text)

    def check(self, sender: EmailAddress) -> list[str]:
        """Connect, encrypt, log in and name the sender, as for an email, then quit; no email is sent.

        Raises Unavailable with what does not work; returns no doubts.
        """
        with _translated_faults(self), _session(self) as client:
            _send_sender(client, Envelope(sender, sender))
            client.rset()
        return []


@contextmanager
def _session(server: SmtpServer) -> Iterator[smtplib.SMTP]:
    token = server.tokens.get() if server.tokens is not None else None
    client = _connect(server)
    try:
        client.ehlo_or_helo_if_needed()
        if server.encryption is Encryption.REQUIRED or (
            server.encryption is Encryption.OFFERED and client.has_extn("starttls")
        ):
            client.starttls(context=_tls(server))
        _log_in(client, server, token)
        yield client
        # The email is accepted; a failing QUIT is not an error.
        with suppress(smtplib.SMTPException, OSError):
            client.quit()
    finally:
        client.close()


def _log_in(client: smtplib.SMTP, server: SmtpServer, token: Token | None) -> None:
    if server.user is None:
        return
    if server.tokens is None or token is None:
        log_in(client, server.user, server.password)
        return
    try:
        log_in_with_token(client, server.user, token.value)
    except smtplib.SMTPAuthenticationError as error:
        server.tokens.discard(token)
        raise Unavailable(
            f"the mail server rejected the token ({_codes(error.smtp_code, error.smtp_error)}): is SMTP_OAUTH_SCOPE "
            "right, and may the client send as the user of SMTP_CONNECTION_URL?"
        ) from error


def _send_envelope(client: smtplib.SMTP, envelope: Envelope) -> "EmailPolicy[EmailMessage]":
    """Send MAIL, RCPT and DATA; return the policy by which the message must be written.

    smtplib's own methods for this would parse the addresses again.
    """
    policy = _send_sender(client, envelope)
    code, text = client.docmd("RCPT", f"TO:<{envelope.recipient}>")
    if code not in POSITIVE:
        raise smtplib.SMTPRecipientsRefused({str(envelope.recipient): (code, text)})
    code, text = client.docmd("DATA")
    if code != GO_ON:
        raise smtplib.SMTPDataError(code, text)
    return policy


def _send_sender(client: smtplib.SMTP, envelope: Envelope) -> "EmailPolicy[EmailMessage]":
    client.ehlo_or_helo_if_needed()  # STARTTLS discards the first EHLO
    options, policy = _options(client, envelope)
    code, text = client.docmd("MAIL", f"FROM:<{envelope.sender}>{options}")
    if code not in POSITIVE:
        raise smtplib.SMTPSenderRefused(code, text, str(envelope.sender))
    return policy


def _options(client: smtplib.SMTP, envelope: Envelope) -> tuple[str, "EmailPolicy[EmailMessage]"]:
    """Return the options of MAIL and the policy of the message, for addresses that are ASCII or not."""
    if envelope.sender.local.isascii() and envelope.recipient.local.isascii():
        return "", SMTP
    if not client.has_extn("smtputf8"):
        lacks = "is not ASCII, and the mail server does not support SMTPUTF8"
        if envelope.sender.local.isascii():
            raise Undeliverable(f"the address {lacks}")
        raise Unavailable(f"EMAIL_FROM_ADDRESS {lacks}")
    client.command_encoding = "utf-8"
    return " SMTPUTF8 BODY=8BITMIME", SMTPUTF8


def _read_answer(client: smtplib.SMTP) -> tuple[int, bytes]:
    """Read the response to the message; without one that decides, the server may have accepted the email."""
    try:
        if client.sock is not None:
            client.sock.settimeout(ANSWER_TIMEOUT_SECONDS)
        code, text = client.getreply()
    except (smtplib.SMTPServerDisconnected, OSError) as error:
        raise Unanswered(f"the mail server received the email but did not respond ({_cause(error)})") from error
    if code not in POSITIVE and code < TEMPORARY:
        raise Unanswered(f"the mail server received the email but did not say whether it accepts it ({code})")
    return code, text


def _connect(server: SmtpServer) -> smtplib.SMTP:
    # smtplib would ask the DNS for our name. Many servers refuse a bare host name, but not an address literal.
    name = socket.gethostname()
    ehlo = server.ehlo or (name if "." in name else "[127.0.0.1]")
    if server.encryption is Encryption.IMPLICIT:
        return smtplib.SMTP_SSL(server.host, server.port, ehlo, timeout=TIMEOUT_SECONDS, context=_tls(server))
    return smtplib.SMTP(server.host, server.port, ehlo, timeout=TIMEOUT_SECONDS)


def _tls(server: SmtpServer) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not server.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _translated_faults(server: SmtpServer) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise _rejection("the recipient", code, text) from error
    except smtplib.SMTPDataError as error:
        raise _rejection("the message", error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPAuthenticationError as error:
        raise Unavailable(
            f"the mail server rejected the login ({_codes(error.smtp_code, error.smtp_error)}): "
            "are user and password of SMTP_CONNECTION_URL right?"
        ) from error
    except smtplib.SMTPSenderRefused as error:
        raise Unavailable(
            f"the mail server rejected EMAIL_FROM_ADDRESS ({_codes(error.smtp_code, error.smtp_error)}): may the user "
            "of SMTP_CONNECTION_URL send as that address?"
        ) from error
    except smtplib.SMTPResponseException as error:
        raise Unavailable(f"the mail server is not ready ({_codes(error.smtp_code, error.smtp_error)})") from error
    except smtplib.SMTPNotSupportedError as error:
        raise Unavailable(f"the mail server does not support what SMTP_CONNECTION_URL requires: {error}") from error
    except ssl.SSLCertVerificationError as error:
        reason = explain_fault(error)
        raise Unavailable(f"the mail server can't be used ({reason}): {CERTIFICATE_REMEDIES[reason]}") from error
    except UnicodeError as error:
        raise Unavailable("SMTP_CONNECTION_URL has a host that SMTP does not allow") from error
    except (smtplib.SMTPException, OSError) as error:
        raise Unavailable(f"the mail server is unavailable ({_cause(error)}): {_suspect(server, error)}") from error


def _suspect(server: SmtpServer, error: Exception) -> str:
    """Return what to look at; a wrong kind of encryption looks like a server that says nothing, or rubbish."""
    if server.port == IMPLICIT_PORT and server.encryption is not Encryption.IMPLICIT:
        return (
            f"port {IMPLICIT_PORT} usually expects TLS from the first byte, so begin SMTP_CONNECTION_URL with smtps://"
        )
    if server.encryption is Encryption.IMPLICIT and getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
        return "the port does not expect TLS from the first byte, so begin SMTP_CONNECTION_URL with smtp://"
    return "is SMTP_CONNECTION_URL right, and is the server running?"


def _rejection(what: str, code: int, text: bytes | str) -> Unavailable | Undeliverable:
    kind = Undeliverable if code >= PERMANENT else Unavailable
    return kind(f"the mail server rejected {what} ({_codes(code, text)})")


def _codes(code: int, text: bytes | str) -> str:
    """Return only the codes, because the text of a server often repeats the address."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    enhanced = ENHANCED_STATUS.match(raw)
    return f"{code} {enhanced[1].decode()}" if enhanced else str(code)


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "timeout"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "it closed the connection"
    if type(error) is smtplib.SMTPException:  # smtplib knows none of the login methods that the server offers
        return str(error)
    if isinstance(error, ssl.SSLError):
        return explain_fault(error)
    return getattr(error, "strerror", None) or type(error).__name__
