"""A proxy before ClickHouse that makes one kind of trouble with the answers that carry rows."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.selection import ROW_STATEMENT


@dataclass
class Trouble:
    """What becomes of an answer's body: sent whole is False when the connection is to be cut behind it.

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
def proxy(target: str, trouble: Trouble) -> Iterator[str]:
    """Serve on a free port; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if sent.startswith(b"KILL"):
                trouble.killed.append(self.path.encode())
            if b"system.settings" in sent:
                trouble.learned.append(sent)
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            with closing(HTTPConnection(target.removeprefix("http://"))) as upstream:
                upstream.request("POST", self.path, sent, headers)
                answer = upstream.getresponse()
                body = answer.read()
            troubled = ROW_STATEMENT in sent
            if troubled:
                trouble.asked.set()
                if trouble.silent:
                    trouble.released.wait(30)
                body = trouble.change(body)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%X\r\n" % len(body) + body + b"\r\n" if body else b"")
            if troubled and not trouble.whole:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        trouble.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
