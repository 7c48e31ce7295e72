"""A receiver of webhooks, written from the specification of Standard Webhooks 1.0.0, with scripted responses."""

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLERANCE_SECONDS = 300
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()


class NotVerified(Exception):
    """The signature of a message is missing, old or wrong."""


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float | None = None) -> dict[str, Any]:
    """Check the signature of a message and return its payload; headers have names in lower case."""
    identifier, timestamp, signatures = (
        headers.get(f"webhook-{each}", "") for each in ("id", "timestamp", "signature")
    )
    if not identifier or not timestamp.isascii() or not timestamp.isdecimal():
        raise NotVerified("the headers are missing or malformed")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise NotVerified("the timestamp is too old or too new")
    prefix, _, encoded = secret.partition("_")
    assert prefix == "whsec"
    key = base64.b64decode(encoded)
    content = b".".join((identifier.encode(), timestamp.encode(), body))
    expected = hmac.new(key, content, hashlib.sha256).digest()
    for each in signatures.split(" "):
        scheme, _, signature = each.partition(",")
        with contextlib.suppress(binascii.Error):
            if scheme == "v1" and hmac.compare_digest(base64.b64decode(signature, validate=True), expected):
                payload: dict[str, Any] = json.loads(body)
                return payload
    raise NotVerified("no signature matches")


@dataclass(frozen=True)
class Request:
    """A request as it arrived; the names of its headers are in lower case."""

    line: str
    headers: Mapping[str, str]
    body: bytes


Respond = Callable[[socket.socket, Request], None]
"""Sends a response, or none; the connection is closed after it."""


def answer(data: bytes) -> Respond:
    """Respond with these bytes."""
    return lambda connection, _: connection.sendall(data)


ACCEPT = answer(b"HTTP/1.1 204 No Content\r\n\r\n")


def answer_status(status: int, body: bytes = b"", headers: str = "") -> Respond:
    """Respond with a status, and further headers that each end with a line break."""
    return answer(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def cut(connection: socket.socket, _: Request) -> None:
    """Reset the connection instead of a response."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@dataclass
class WebhookReceiver:
    """An HTTP server with one thread for each connection; `script` has the next responses, then `respond` is used."""

    port: int = 0
    scheme: str = "http"
    respond: Respond = ACCEPT
    script: list[Respond] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    names: list[str | None] = field(default_factory=list)
    """The server names of the TLS handshakes."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?token=hush"

    def payloads(self, secret: str = SECRET) -> list[dict[str, Any]]:
        """Verify all requests that arrived and return what they say."""
        return [verify(each.headers, each.body, secret) for each in list(self.requests)]

    def serve(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        """Handle one connection."""
        with contextlib.suppress(OSError), connection:
            connection.settimeout(60)
            opened = context.wrap_socket(connection, server_side=True) if context is not None else connection
            with opened:
                request = read_request(opened)
                if request is not None:
                    self.requests.append(request)
                    (self.script.pop(0) if self.script else self.respond)(opened, request)


def read_request(connection: socket.socket) -> Request | None:
    """Read one request, or None if the connection ends before it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65_536)):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65_536)
    return Request(line, headers, body)


@contextlib.contextmanager
def webhook_receiver(
    *, context: ssl.SSLContext | None = None, script: Sequence[Respond] = (), port: int = 0
) -> Iterator[WebhookReceiver]:
    """Serve on 127.0.0.1 while the block runs, with TLS if there is a context."""
    receiver = WebhookReceiver(scheme="https" if context is not None else "http", script=list(script))
    if context is not None:
        context.sni_callback = lambda _, name, __: receiver.names.append(name)
    with socket.create_server(("127.0.0.1", port)) as listener:
        receiver.port = listener.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    receiver.connections += 1
                    threading.Thread(target=receiver.serve, args=(connection, context), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield receiver
        finally:
            listener.shutdown(socket.SHUT_RDWR)
