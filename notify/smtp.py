"""Hands one mail to the SMTP server, and sorts what can go wrong by whether to try again."""

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
from urllib.parse import parse_qsl, unquote, urlsplit

from config.settings import Misconfigured
from notify.errors import Unanswered, Unavailable, Undeliverable

SECONDS = 60.0
"""How long the server may be silent at any step but the last."""

ANSWER_SECONDS = 600.0
"""How long it may think about the mail once it has it (RFC 5321, section 4.5.3.2): to give up early doubles mails."""

ENHANCED_STATUS = re.compile(rb"^([245]\.\d{1,3}\.\d{1,3})\b")
OK, FORWARDED, GO_ON, PERMANENT = 250, 251, 354, 500
LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)


class Encryption(Enum):
    """When the connection is encrypted: from the first byte, by STARTTLS always, when offered, or not at all."""

    IMPLICIT = "implicit"
    REQUIRED = "required"
    OFFERED = "offered"
    NONE = "none"


@dataclass(frozen=True)
class Server:
    """One SMTP server as SMTP_CONNECTION_URL names it."""

    host: str
    port: int
    encryption: Encryption
    user: str | None = None
    password: str = field(default="", repr=False)
    verify: bool = True
    ehlo: str | None = None


def parse_server(url: str) -> Server:
    """Read SMTP_CONNECTION_URL: `smtp://` (port 587) or `smtps://` (port 465), user and password percent-encoded.

    Of the options after `?` it knows nodemailer's `requireTLS`, `ignoreTLS`, `secure`, `tls.rejectUnauthorized` and
    `name`, in any case, and passes over the rest. Raises Misconfigured, in words that hold nothing of the URL.
    """
    try:
        parts = urlsplit(url)
        given = parts.port
    except ValueError:
        # The original error is left out: it may quote a part of the password.
        raise _wrong("it is not a URL; are the special characters in the password percent-encoded?") from None
    options = {name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.scheme not in {"smtp", "smtps"}:
        raise _wrong("it must start with smtp:// or smtps://")
    if not parts.hostname:
        raise _wrong("it names no host")
    implicit = parts.scheme == "smtps" or _true(options, "secure")
    return Server(
        host=parts.hostname,
        port=given or (465 if implicit else 587),
        encryption=Encryption.IMPLICIT if implicit else _starttls(options),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password or ""),
        verify=options.get("tls.rejectunauthorized", "true").lower() not in {"false", "0"},
        ehlo=options.get("name"),
    )


def send(server: Server, message: EmailMessage, fence: Callable[[], None] = lambda: None) -> None:
    """Hand the mail over to the one that its header names; returning means that the server has taken it.

    `fence` is called right before the mail itself is sent, and raises if it must not be.
    Raises Unavailable (no answer, 4xx, a certificate or login that does not work), Undeliverable (5xx for the
    recipient or the content, or an address that the server has no means to reach), or Unanswered (no answer to the
    mail itself, which may have been taken).
    """
    with _translated(), _session(server) as client:
        policy = _announce(client, message)
        data = LEADING_DOT.sub(b"..", message.as_bytes(policy=policy))
        fence()
        client.send(data.removesuffix(b"\r\n") + b"\r\n.\r\n")
        code, text = _answer(client)
        if code != OK:
            raise smtplib.SMTPDataError(code, text)


def check(server: Server) -> None:
    """Connect, encrypt and log in as for a mail, and leave; raises Unavailable with what does not work."""
    with _translated(), _session(server):
        pass


@contextmanager
def _session(server: Server) -> Iterator[smtplib.SMTP]:
    client = _connect(server)
    try:
        client.ehlo_or_helo_if_needed()
        if server.encryption is Encryption.REQUIRED or (
            server.encryption is Encryption.OFFERED and client.has_extn("starttls")
        ):
            client.starttls(context=_tls(server))
        if server.user is not None:
            client.login(server.user, server.password)
        yield client
        # The mail is taken: a farewell that goes wrong must not make it look untaken.
        with suppress(smtplib.SMTPException, OSError):
            client.quit()
    finally:
        client.close()


def _announce(client: smtplib.SMTP, message: EmailMessage) -> "EmailPolicy[EmailMessage]":
    """Say from whom and to whom, and that the mail comes; gives the policy to write it by."""
    client.ehlo_or_helo_if_needed()  # encryption makes the server forget what it said
    sender, recipient = (message[name].addresses[0].addr_spec for name in ("From", "To"))
    options: list[str] = []
    if not (sender.isascii() and recipient.isascii()):
        if not client.has_extn("smtputf8"):
            raise smtplib.SMTPNotSupportedError("SMTPUTF8 is not offered")
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        client.command_encoding = "utf-8"
    code, text = client.mail(sender, options)
    if code != OK:
        raise smtplib.SMTPSenderRefused(code, text, sender)
    code, text = client.rcpt(recipient)
    if code not in {OK, FORWARDED}:
        raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})
    code, text = client.docmd("data")
    if code != GO_ON:
        raise smtplib.SMTPDataError(code, text)
    return SMTPUTF8 if options else SMTP


def _answer(client: smtplib.SMTP) -> tuple[int, bytes]:
    """Wait for what the server says to the mail: from here on it may have been taken."""
    try:
        if client.sock is not None:
            client.sock.settimeout(ANSWER_SECONDS)
        return client.getreply()
    except (smtplib.SMTPServerDisconnected, OSError) as error:
        raise Unanswered(f"the mail server has the mail and does not answer ({_cause(error)})") from error


def _connect(server: Server) -> smtplib.SMTP:
    # smtplib would ask the DNS for our name; a bare host name is refused by many servers, an address literal is not.
    name = socket.gethostname()
    ehlo = server.ehlo or (name if "." in name else "[127.0.0.1]")
    if server.encryption is Encryption.IMPLICIT:
        return smtplib.SMTP_SSL(server.host, server.port, ehlo, timeout=SECONDS, context=_tls(server))
    return smtplib.SMTP(server.host, server.port, ehlo, timeout=SECONDS)


def _tls(server: Server) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not server.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise _refused("the recipient", code, text) from error
    except smtplib.SMTPDataError as error:
        raise _refused("the message", error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPAuthenticationError as error:
        raise Unavailable(f"the mail server refuses our login ({_reply(error.smtp_code, error.smtp_error)})") from error
    except smtplib.SMTPSenderRefused as error:
        raise Unavailable(
            f"the mail server refuses EMAIL_FROM_ADDRESS ({_reply(error.smtp_code, error.smtp_error)})"
        ) from error
    except smtplib.SMTPResponseException as error:
        raise Unavailable(f"the mail server is not ready ({_reply(error.smtp_code, error.smtp_error)})") from error
    except smtplib.SMTPNotSupportedError as error:
        if "SMTPUTF8" in str(error):
            raise Undeliverable("the address is not ASCII, and the mail server lacks SMTPUTF8") from error
        raise Unavailable(f"the mail server lacks what SMTP_CONNECTION_URL asks for: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(f"the mail server's certificate is not trusted: {error.verify_message}") from error
    except UnicodeError as error:
        raise Unavailable("SMTP_CONNECTION_URL holds a host, user or password that SMTP can't carry") from error
    except (smtplib.SMTPException, OSError) as error:
        raise Unavailable(f"the mail server does not answer ({_cause(error)})") from error


def _refused(what: str, code: int, text: bytes | str) -> Unavailable | Undeliverable:
    kind = Undeliverable if code >= PERMANENT else Unavailable
    return kind(f"the mail server refuses {what} ({_reply(code, text)})")


def _reply(code: int, text: bytes | str) -> str:
    """Give the codes alone: a server's words often repeat the address."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    enhanced = ENHANCED_STATUS.match(raw)
    return f"{code} {enhanced[1].decode()}" if enhanced else str(code)


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "it took too long"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "it closed the connection"
    if type(error) is smtplib.SMTPException:  # smtplib's way to say that it knows none of the login methods offered
        return str(error)
    return getattr(error, "strerror", None) or type(error).__name__


def _starttls(options: dict[str, str]) -> Encryption:
    if _true(options, "requiretls"):
        return Encryption.REQUIRED
    return Encryption.NONE if _true(options, "ignoretls") else Encryption.OFFERED


def _true(options: dict[str, str], name: str) -> bool:
    return options.get(name, "false").lower() in {"true", "1", ""}


def _wrong(why: str) -> Misconfigured:
    return Misconfigured([f"SMTP_CONNECTION_URL: {why}"])
