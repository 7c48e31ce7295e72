"""An HTTP proxy before ClickHouse or S3 that knows requests apart, and does what a test asks to those it picks."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.barrier import Dropped

PIECE = 64 * 1024
UPSTREAM_SECONDS = 120
_HOP_BY_HOP = {"transfer-encoding", "connection", "keep-alive", "date", "server"}

Body = Iterator[bytes]


class Cut(ConnectionError):
    """The connection is to be reset here."""


@dataclass(frozen=True)
class Asked:
    """One request, all of it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What the server said, its body yet to be read."""

    status: int
    headers: dict[str, str]
    body: Body = field(repr=False)


Ask = Callable[[], Answer]
Act = Callable[[Ask], Answer]
"""Gives the answer to a request, by asking the server or not; raises Cut or Dropped to reset the connection."""


@dataclass
class Rule:
    """Does `act` to requests that match: the first `skip` of them pass, then `times` are done it to."""

    matches: Callable[[Asked], bool]
    act: Act
    skip: int = 0
    times: int = 1_000_000
    done: int = 0


@dataclass
class Door:
    """The proxy's rules, first match first, and what it saw."""

    url: str
    rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, matches: Callable[[Asked], bool], act: Act, *, skip: int = 0, times: int = 1_000_000) -> Rule:
        """Have this done from now on."""
        rule = Rule(matches, act, skip, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Let everything pass."""
        with self._lock:
            self.rules.clear()

    def due(self, asked: Asked) -> Act | None:
        """Take the act that is due to a request, if any."""
        with self._lock:
            for rule in self.rules:
                if not rule.matches(asked):
                    continue
                if rule.skip:
                    rule.skip -= 1
                elif rule.done < rule.times:
                    rule.done += 1
                    return rule.act
        return None


@contextlib.contextmanager
def door(target: str) -> Iterator[Door]:
    """Run a proxy before an HTTP server, as `host:port` or its URL, for the block."""
    host = target.removeprefix("http://")
    made = Door("")

    class Handler(_Handler):
        upstream = host
        rules = made

    server = _Server(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing: connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    rules: Door

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        asked = Asked(self.command, self.path, dict(self.headers.items()), self._read())
        with contextlib.closing(HTTPConnection(self.upstream, timeout=UPSTREAM_SECONDS)) as connection:
            try:
                act = self.rules.due(asked)
                self._answer(asked, act(lambda: _ask(connection, asked)) if act else _ask(connection, asked))
            except (Cut, Dropped, OSError, HTTPException):
                self._reset()

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815 (http.server names them)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    def _answer(self, asked: Asked, answer: Answer) -> None:
        self.send_response_only(answer.status)
        chunked = "Content-Length" not in answer.headers
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if asked.method == "HEAD":
            return
        for piece in answer.body:
            self.wfile.write(b"%X\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _ask(connection: HTTPConnection, asked: Asked) -> Answer:
    # The host stays the client's: it is part of what S3's clients sign.
    headers = {
        name: value for name, value in asked.headers.items() if name.lower() not in {"expect", "transfer-encoding"}
    }
    headers |= {"Content-Length": str(len(asked.body))} if asked.body else {}
    connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(asked.body or None)
    response = connection.getresponse()
    kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
    return Answer(response.status, kept, _pieces(response))


def _pieces(response: HTTPResponse) -> Body:
    while piece := response.read1(PIECE):
        yield piece
