"""Sends one HTTP request to the receiver of a channel, over a connection to an address that may be used."""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from config.errors import Unavailable
from config.settings_channels import ALLOWED_NETWORKS, Network
from notify.mailer import Unanswered, Undeliverable
from notify.networks import is_allowed, may_connect
from runtime.network import CERTIFICATE_REMEDIES, explain_fault

CONNECT_SECONDS = 10.0
"""Timeout of the name lookup, the connection and the TLS handshake together."""

ANSWER_SECONDS = 15.0
"""Timeout of each wait for a part of the response."""

TOTAL_SECONDS = 30.0
"""Timeout of the whole request, which a receiver that sends a byte at a time can't extend."""

CODE_BYTES = 200
CODE_SECONDS = 2.0
"""How much of the body of a refusal is read, and for how long: Slack explains its refusals in a word."""

_CODE = re.compile(r"[a-z_]{1,40}")
"""An error code of Slack; any other text of a receiver is neither logged nor stored."""


@dataclass(frozen=True)
class Receiver:
    """The URL that the messages of a channel go to, and the setting that contains it.

    `networks` are private networks that it may be in; elsewhere it must have a public address, and use TLS.
    """

    url: str = field(repr=False)
    setting: str
    networks: tuple[Network, ...] = ()

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a JSON body; it returns once the receiver has accepted it with a status of 2xx.

        It takes up to 30 s, and redirects are not followed. Raises Unavailable if the message was certainly not
        accepted and a retry may succeed, Undeliverable if the receiver wants no more messages (410), and Unanswered if
        it may have accepted the message. No text contains the URL. May run in any thread.
        """
        # An event loop of its own bounds the whole request; a timeout of a socket would begin again with each byte.
        asyncio.run(_post(self, body, headers))

    def check(self) -> None:
        """Connect, with TLS if the URL says so, and send nothing; raises Unavailable with what does not work."""
        asyncio.run(_check(self))


class _Guard:
    """Opens the sockets of one request: the address that is checked is the one that the socket connects to.

    The name is looked up only once, so that another answer of the DNS can't lead the connection elsewhere.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._plain = urlsplit(receiver.url).scheme == "http"
        self._refusal: str | None = None
        self._opened = False

    @property
    def refusal(self) -> str | None:
        """Why no address of the receiver may be used; None if one may."""
        return None if self._opened else self._refusal

    def open(self, found: tuple[Any, ...]) -> socket.socket:
        """Open a socket for an address as getaddrinfo gives it; raises OSError if it may not be used."""
        family, kind, protocol, _, address = found
        if refusal := self._judge(address[0]):
            self._refusal = refusal
            raise PermissionError("the address may not be used")
        self._opened = True
        return socket.socket(family, kind, protocol)

    def _judge(self, host: str) -> str | None:
        if not may_connect(host, self._receiver.networks):
            return f"it has the private address {host}: if that is intended, add its network to {ALLOWED_NETWORKS}"
        if self._plain and not is_allowed(host, self._receiver.networks):
            return f"http:// is for the networks of {ALLOWED_NETWORKS} only: use https://"
        return None


async def _check(receiver: Receiver) -> None:
    guard, loop, parts = _Guard(receiver), asyncio.get_running_loop(), urlsplit(receiver.url)
    encrypted = parts.scheme == "https"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            port = parts.port or (443 if encrypted else 80)
            found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
            opened = await _connect(guard, found)
            transport, _ = await loop.create_connection(
                asyncio.Protocol,
                sock=opened,
                ssl=ssl.create_default_context() if encrypted else None,
                server_hostname=parts.hostname if encrypted else None,
            )
            transport.abort()
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that DNS does not allow
        raise _explain(receiver, guard, error) from error


async def _connect(guard: _Guard, found: Sequence[tuple[Any, ...]]) -> socket.socket:
    """Connect to the first address that may be used and responds; raises the OSError of the last one."""
    failed = OSError("the host has no address")
    for each in found:
        try:
            opened = guard.open(each)
        except PermissionError as error:
            failed = error
            continue
        try:
            opened.settimeout(0)
            await asyncio.get_running_loop().sock_connect(opened, each[4])
        except OSError as error:
            opened.close()
            failed = error
        else:
            return opened
    raise failed


async def _post(receiver: Receiver, body: bytes, headers: Mapping[str, str]) -> None:
    import aiohttp

    guard = _Guard(receiver)
    try:
        async with (
            asyncio.timeout(TOTAL_SECONDS),
            _open_session(guard) as session,
            # A redirect could lead to any host.
            session.post(receiver.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            code = "" if response.ok else await _read_code(response)
            _judge(receiver, response.status, code)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, UnicodeError) as error:
        raise _explain(receiver, guard, error) from error  # UnicodeError: a host that DNS does not allow
    except (aiohttp.ClientError, OSError) as error:
        reason = explain_fault(error)
        raise Unanswered(
            f"the receiver of {receiver.setting} got the message but did not respond properly ({reason})"
        ) from error


def _open_session(guard: _Guard) -> Any:
    import aiohttp

    connector = aiohttp.TCPConnector(
        # A new context reads the file of SSL_CERT_FILE again.
        ssl=ssl.create_default_context(),
        resolver=aiohttp.ThreadedResolver(),
        use_dns_cache=False,
        force_close=True,
        socket_factory=guard.open,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS),
        headers={
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"Waybill/{version('waybill')}",
        },
        auto_decompress=False,
        # A proxy would connect to an address that was not checked.
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _read_code(response: Any) -> str:
    """Return the error code that is the whole body, and "" for any other body, which is not read to its end."""
    import aiohttp

    text = b""
    with suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(CODE_SECONDS):
            while len(text) <= CODE_BYTES and (piece := await response.content.read(CODE_BYTES)):
                text += piece
    code = text.decode(errors="replace").strip()
    return code if response.content.at_eof() and _CODE.fullmatch(code) else ""


def _judge(receiver: Receiver, status: int, code: str) -> None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    response = f"the receiver of {receiver.setting} responded with {' '.join(filter(None, (str(status), code)))}"
    if status == HTTPStatus.GONE:
        raise Undeliverable(f"{response}: it wants no more messages, so remove {receiver.setting} or correct it")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise Unavailable(f"{response}, and redirects are not followed: set {receiver.setting} to the final URL")
    raise Unavailable(response)


def _explain(receiver: Receiver, guard: _Guard, error: Exception) -> Unavailable:
    reason = explain_fault(error)
    remedy = CERTIFICATE_REMEDIES.get(reason, f"is {receiver.setting} right, and is the receiver reachable from here?")
    if guard.refusal is not None:
        return Unavailable(f"the receiver of {receiver.setting} can't be used: {guard.refusal}")
    return Unavailable(f"the receiver of {receiver.setting} is unavailable ({reason}): {remedy}")
