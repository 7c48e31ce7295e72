"""Reads SMTP_CONNECTION_URL of an SMTP server."""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from config.settings import Misconfigured
from notify.smtp import IMPLICIT_PORT, Encryption, SmtpServer
from runtime.tokens import Tokens

_NAME = re.compile(r"[A-Za-z0-9._-]{0,253}|\[[A-Za-z0-9.:]{1,60}\]")

_ON, _OFF = {"true", "1", "yes", ""}, {"false", "0", "no"}


def parse_server(url: str, tokens: Tokens | None = None) -> SmtpServer:
    """Read SMTP_CONNECTION_URL: `smtp://` (port 587) or `smtps://` (port 465), user and password percent-encoded.

    The options after `?` are nodemailer's `requireTLS`, `ignoreTLS`, `secure`, `tls.rejectUnauthorized` and `name`,
    in upper or lower case; others are ignored. Raises Misconfigured, whose text contains no part of the URL.
    """
    try:
        parts = urlsplit(url)
        given = parts.port
        user, password = (unquote(each or "", errors="strict") for each in (parts.username, parts.password))
    except UnicodeDecodeError:
        raise _misconfigured("user and password must be percent-encoded as UTF-8") from None
    except ValueError:
        # The original error may quote a part of the password.
        raise _misconfigured("it is not a URL; are the special characters in the password percent-encoded?") from None
    options = {name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.scheme not in {"smtp", "smtps"}:
        raise _misconfigured("it must start with smtp:// or smtps://")
    if not parts.hostname:
        raise _misconfigured("it has no host")
    name = options.get("name")
    if name is not None and not _NAME.fullmatch(name):
        raise _misconfigured("the option name must be a host name, or an address in brackets")
    implicit = parts.scheme == "smtps" or _is_on(options, "secure")
    return SmtpServer(
        host=parts.hostname,
        port=given or (IMPLICIT_PORT if implicit else 587),
        encryption=Encryption.IMPLICIT if implicit else _starttls(options),
        user=user or None,
        password=password,
        verify=_is_on(options, "tls.rejectunauthorized", absent="true"),
        ehlo=name,
        tokens=tokens,
    )


def _starttls(options: dict[str, str]) -> Encryption:
    if _is_on(options, "requiretls"):
        return Encryption.REQUIRED
    return Encryption.NONE if _is_on(options, "ignoretls") else Encryption.OFFERED


def _is_on(options: dict[str, str], name: str, absent: str = "false") -> bool:
    """Whether an option is on; one without a value is."""
    value = options.get(name, absent).lower()
    if value not in _ON | _OFF:
        raise _misconfigured(f"the option {name} must be true or false")
    return value in _ON


def _misconfigured(reason: str) -> Misconfigured:
    return Misconfigured([f"SMTP_CONNECTION_URL: {reason}"])
