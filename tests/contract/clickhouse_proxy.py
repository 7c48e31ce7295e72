"""A proxy in front of ClickHouse that injects one fault into the responses with rows."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.selection import ROW_STATEMENT


@dataclass
class Fault:
    """A fault: `change` replaces the body; the connection is cut after it unless `whole`; `silent` delays it.

    `killed` and `learned` are the requests that killed a query, and those that asked for the server's settings.
    """

    change: Callable[[bytes], bytes] = lambda body: body
    whole: bool = True
    silent: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    killed: list[bytes] = field(default_factory=list)
    learned: list[bytes] = field(default_factory=list)


@contextmanager
def proxy(target: str, fault: Fault) -> Iterator[str]:
    """Serve on a free port while the block runs; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if sent.startswith(b"KILL"):
                fault.killed.append(self.path.encode())
            if b"max, readonly)) FROM system.settings" in sent:
                fault.learned.append(sent)
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            with closing(HTTPConnection(target.removeprefix("http://"))) as upstream:
                upstream.request("POST", self.path, sent, headers)
                response = upstream.getresponse()
                body = response.read()
            has_rows = ROW_STATEMENT in sent
            if has_rows:
                fault.asked.set()
                if fault.silent:
                    fault.released.wait(30)
                body = fault.change(body)
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%X\r\n" % len(body) + body + b"\r\n" if body else b"")
            if has_rows and not fault.whole:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        fault.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
