"""Logs in to an SMTP server: with a user and a password in UTF-8, which smtplib can't send, or with a token."""

import base64
import hmac
import smtplib
from collections.abc import Callable

CHALLENGE, AUTHENTICATED, ALREADY_AUTHENTICATED = 334, 235, 503
XOAUTH2 = "XOAUTH2"


def log_in(client: smtplib.SMTP, user: str, password: str) -> None:
    """Log in by the methods that the server offers, one after the other until it accepts one.

    Raises SMTPAuthenticationError for the last method, SMTPNotSupportedError if the server offers no login, and
    SMTPException if it offers only methods that are not supported here.
    """
    offered = _list_methods(client)
    refused = smtplib.SMTPException("No suitable authentication method found.")
    for name, method in _METHODS.items():
        if name not in offered:
            continue
        code, text = method(client, user.encode(), password.encode())
        if code in {AUTHENTICATED, ALREADY_AUTHENTICATED}:
            return
        refused = smtplib.SMTPAuthenticationError(code, text)
        # The server may wait for one more response, which `*` cancels (RFC 4954, section 4).
        if code == CHALLENGE:
            client.docmd("*")
    raise refused


def log_in_with_token(client: smtplib.SMTP, user: str, token: str) -> None:
    """Log in with an access token; raises SMTPAuthenticationError, and SMTPNotSupportedError without XOAUTH2."""
    if XOAUTH2 not in _list_methods(client):
        raise smtplib.SMTPNotSupportedError(f"{XOAUTH2} is not offered by the server.")
    response = f"user={user}\x01auth=Bearer {token}\x01\x01"
    code, text = client.docmd("AUTH", f"{XOAUTH2} {_encode(response.encode())}")
    if code == CHALLENGE:  # the challenge says why the token is refused; an empty response ends the exchange
        code, text = client.docmd("")
    if code not in {AUTHENTICATED, ALREADY_AUTHENTICATED}:
        raise smtplib.SMTPAuthenticationError(code, text)


def _list_methods(client: smtplib.SMTP) -> list[str]:
    client.ehlo_or_helo_if_needed()
    if not client.has_extn("auth"):
        raise smtplib.SMTPNotSupportedError("SMTP AUTH extension not supported by server.")
    return client.esmtp_features["auth"].upper().split()


def _by_cram_md5(client: smtplib.SMTP, user: bytes, password: bytes) -> tuple[int, bytes]:
    code, text = client.docmd("AUTH", "CRAM-MD5")
    if code != CHALLENGE:
        return code, text
    try:
        challenge = base64.b64decode(text)
    except ValueError as error:
        raise smtplib.SMTPException("The challenge of CRAM-MD5 is not base64.") from error
    digest = hmac.new(password, challenge, "md5").hexdigest()
    return client.docmd(_encode(user + b" " + digest.encode()))


def _by_plain(client: smtplib.SMTP, user: bytes, password: bytes) -> tuple[int, bytes]:
    response = b"\0" + user + b"\0" + password
    return client.docmd("AUTH", f"PLAIN {_encode(response)}")


def _by_login(client: smtplib.SMTP, user: bytes, password: bytes) -> tuple[int, bytes]:
    code, text = client.docmd("AUTH", f"LOGIN {_encode(user)}")
    return client.docmd(_encode(password)) if code == CHALLENGE else (code, text)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


_METHODS: dict[str, Callable[[smtplib.SMTP, bytes, bytes], tuple[int, bytes]]] = {
    "CRAM-MD5": _by_cram_md5,
    "PLAIN": _by_plain,
    "LOGIN": _by_login,
}
"""In the order in which they are tried."""
