"""Fetches access tokens from an OAuth 2 token endpoint."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from config.errors import Unavailable
from runtime.network import CERTIFICATE_REMEDIES, explain_fault
from runtime.tokens import Token

SECONDS = 10.0
"""Timeout of one request, from the connection to the end of the response."""

DEFAULT_LIFETIME = 60.0
"""How long a token is used, in seconds, if the endpoint does not say how long it is valid."""

MAX_BYTES = 1024 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""A token is a part of the login, where a control character would end it (RFC 7628, section 3.1)."""

_CODE = re.compile(r"[a-z_]{1,40}")
_INVALID_CLIENT = "invalid_client"


@dataclass(frozen=True)
class TokenEndpoint:
    """A token endpoint and the login there; with a refresh token, the grant is `refresh_token`.

    `settings` begins the names of the settings that error messages name, such as `SMTP_OAUTH`.
    """

    url: str
    client_id: str
    client_secret: str | None = field(repr=False)
    settings: str
    scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Answer:
    status: int
    content: Mapping[str, Any]

    @property
    def code(self) -> str:
        """The error code of RFC 6749, section 5.2, and "" for anything else: other text could contain a secret."""
        code = self.content.get("error")
        return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def fetch_token(endpoint: TokenEndpoint, now: float) -> Token:
    """Ask for a new access token; `now` is in seconds since the epoch.

    It takes up to 10 s, or 20 s if the credentials are sent twice, in the header and in the body. Raises Unavailable,
    whose text names the settings to check and contains no secret. May run in any thread.
    """
    import aiohttp

    try:
        # An event loop of its own bounds the whole request; a timeout of a socket would begin again with each byte.
        answer = asyncio.run(_ask(endpoint))
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: a host that DNS does not allow
        reason = explain_fault(error)
        remedy = CERTIFICATE_REMEDIES.get(reason, "is {0}_TOKEN_ENDPOINT_URL right?")
        raise _unavailable(endpoint, f"is unavailable ({reason})", remedy) from error
    if answer.status != HTTPStatus.OK:
        raise _explain(endpoint, answer)
    return _read_token(endpoint, answer.content, now)


async def _ask(endpoint: TokenEndpoint) -> _Answer:
    """Send the credentials in the header, and in the body if the endpoint accepts them only there."""
    if endpoint.client_secret is None:
        return await _post(endpoint, {}, {"client_id": endpoint.client_id})
    pair = f"{quote(endpoint.client_id, safe='')}:{quote(endpoint.client_secret, safe='')}"
    answer = await _post(endpoint, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, {})
    if answer.status == HTTPStatus.UNAUTHORIZED or answer.code in {_INVALID_CLIENT, "invalid_request"}:
        body = {"client_id": endpoint.client_id, "client_secret": endpoint.client_secret}
        return await _post(endpoint, {}, body)
    return answer


async def _post(endpoint: TokenEndpoint, headers: dict[str, str], credentials: dict[str, str]) -> _Answer:
    import ssl

    import aiohttp

    form = {"grant_type": "client_credentials"} | credentials
    if endpoint.refresh_token is not None:
        form |= {"grant_type": "refresh_token", "refresh_token": endpoint.refresh_token}
    if endpoint.scope is not None:
        form["scope"] = endpoint.scope
    # A new context reads the file of SSL_CERT_FILE again.
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    headers = {"Accept": "application/json"} | headers
    # A redirect could take the secret to another host.
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers, trust_env=True) as session,
        session.post(endpoint.url, data=form, allow_redirects=False) as response,
    ):
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > MAX_BYTES:
                break
        return _Answer(response.status, _parse(bytes(body)))


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_token(endpoint: TokenEndpoint, content: Mapping[str, Any], now: float) -> Token:
    value, lifetime = content.get("access_token"), _read_lifetime(content.get("expires_in"))
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _unavailable(endpoint, "answered without a token", "is {0}_TOKEN_ENDPOINT_URL that of a token endpoint?")
    if lifetime <= 0:
        raise _unavailable(endpoint, "answered with a token that has expired", "is its clock right?")
    return Token(value, now + lifetime, lifetime)


def _read_lifetime(given: Any) -> float:
    """Return the lifetime in seconds; some endpoints write it as text, and others omit it."""
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME
    return min(seconds, 365 * 86_400.0) if seconds == seconds else DEFAULT_LIFETIME  # noqa: PLR0124 (not a number)


def _explain(endpoint: TokenEndpoint, answer: _Answer) -> Unavailable:
    said = f"{answer.status} {answer.code}".strip()
    match answer.code:
        case "invalid_scope":
            return _unavailable(endpoint, f"rejects the scope ({said})", "is {0}_SCOPE right?")
        case "invalid_grant" if endpoint.refresh_token is not None:
            return _unavailable(endpoint, f"rejects the refresh token ({said})", "is {0}_REFRESH_TOKEN still valid?")
        case "unauthorized_client" | "unsupported_grant_type":
            grant = "refresh_token" if endpoint.refresh_token is not None else "client_credentials"
            return _unavailable(endpoint, f"refuses the grant {grant} ({said})", "may {0}_CLIENT_ID use it?")
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or answer.code == _INVALID_CLIENT:
        return _unavailable(endpoint, f"rejects the client ({said})", "are {0}_CLIENT_ID and {0}_CLIENT_SECRET right?")
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unavailable(f"the token endpoint {_host(endpoint)} is unavailable ({said})")
    return _unavailable(endpoint, f"answered {said}", "is {0}_TOKEN_ENDPOINT_URL that of a token endpoint?")


def _unavailable(endpoint: TokenEndpoint, what: str, hint: str) -> Unavailable:
    return Unavailable(f"the token endpoint {_host(endpoint)} {what}: {hint.format(endpoint.settings)}")


def _host(endpoint: TokenEndpoint) -> str:
    return urlsplit(endpoint.url).netloc
