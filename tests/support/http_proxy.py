"""An HTTP proxy in front of ClickHouse or a store that answers the requests that a test selects as the test says."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.barrier import Dropped

PIECE = 64 * 1024
UPSTREAM_SECONDS = 120
_HOP_BY_HOP = {"transfer-encoding", "connection", "keep-alive", "date", "server"}

Body = Iterator[bytes]


class Cut(ConnectionError):
    """Reset the connection here."""


@dataclass(frozen=True)
class Request:
    """A whole request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Response:
    """A response whose body has not been read yet."""

    status: int
    headers: dict[str, str]
    body: Body = field(repr=False)


Forward = Callable[[], Response]
Responder = Callable[[Forward], Response]
"""Gives the response to a request, by forwarding it or not; raises Cut or Dropped to reset the connection."""


@dataclass
class Rule:
    """Answers `times` of the matching requests with `respond`, after the first `skip` of them."""

    matches: Callable[[Request], bool]
    respond: Responder
    skip: int = 0
    times: int = 1_000_000
    done: int = 0


@dataclass
class HttpProxy:
    """The proxy's address and its rules, of which the first match applies.

    `change` makes what is forwarded of a request that no rule answers otherwise.
    """

    url: str
    rules: list[Rule] = field(default_factory=list)
    change: Callable[[Request], Request] = lambda request: request
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, matches: Callable[[Request], bool], respond: Responder, *, skip: int = 0, times: int = 1_000_000
    ) -> Rule:
        """Answer matching requests with `respond` from now on."""
        rule = Rule(matches, respond, skip, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forward every request unchanged."""
        with self._lock:
            self.rules.clear()

    def take(self, request: Request) -> Responder | None:
        """Return the responder for a request, and count its use; None to forward the request unchanged."""
        with self._lock:
            for rule in self.rules:
                if not rule.matches(request):
                    continue
                if rule.skip:
                    rule.skip -= 1
                elif rule.done < rule.times:
                    rule.done += 1
                    return rule.respond
        return None


@contextlib.contextmanager
def http_proxy(
    target: str, tls: ssl.SSLContext | None = None, *, port: int = 0, proxy: HttpProxy | None = None
) -> Iterator[HttpProxy]:
    """Run a proxy in front of an HTTP server, given as `host:port` or URL, while the block runs; over TLS if given.

    Of a URL, the path is ignored in requests, and stays at the end of the proxy's own. `proxy` has other rules.
    """
    host, slash, path = target.removeprefix("http://").partition("/")
    chosen = proxy or HttpProxy("")

    class Handler(_Handler):
        upstream = host
        rules = chosen

    server = _Server(("127.0.0.1", port), Handler)
    chosen.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}{slash}{path}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield chosen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Print nothing: the proxy breaks connections on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    rules: HttpProxy

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()), self._read())
        with contextlib.closing(HTTPConnection(self.upstream, timeout=UPSTREAM_SECONDS)) as connection:
            try:
                respond = self.rules.take(request)
                sent = self.rules.change(request)
                self._send(
                    request, respond(lambda: _forward(connection, sent)) if respond else _forward(connection, sent)
                )
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

    def _send(self, request: Request, response: Response) -> None:
        self.send_response_only(response.status)
        has_body = request.method != "HEAD" and response.status != HTTPStatus.NO_CONTENT
        chunked = has_body and "Content-Length" not in response.headers
        for name, value in response.headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if not has_body:
            return
        for piece in response.body:
            self.wfile.write(b"%X\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _forward(connection: HTTPConnection, request: Request) -> Response:
    # S3's clients sign the host: it must stay theirs.
    headers = {
        name: value for name, value in request.headers.items() if name.lower() not in {"expect", "transfer-encoding"}
    }
    headers |= {"Content-Length": str(len(request.body))} if request.body else {}
    connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(request.body or None)
    response = connection.getresponse()
    kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
    return Response(response.status, kept, _pieces(response))


def _pieces(response: HTTPResponse) -> Body:
    while piece := response.read1(PIECE):
        yield piece
