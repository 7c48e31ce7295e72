"""The HTTP side: routes, headers, chunked answers, exceptions before and in the middle of an answer."""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from embedded.clickhouse import body, errors, request
from embedded.clickhouse.disconnects import Watch
from embedded.clickhouse.engine import Engine, Statement

HEALTHY = ("/ping", "/replicas_status")
TAG_BYTES = 8
# A summary goes out before the answer, so of what a query read it can tell nothing.
NOTHING_COUNTED = dict.fromkeys(
    ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows", "result_bytes"),
    "0",
)

logger = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """Serves one engine on a loopback port, each connection in a thread.

    Any user and password will do. Sessions and compressed answers are not offered: asking for them changes
    nothing.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine
        self.watch = Watch(engine.kill)


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Tell that all is well, or run a query from the URL."""
        if urlsplit(self.path).path in HEALTHY:
            self._reply(HTTPStatus.OK, b"Ok.\n", {})
        else:
            self._run()

    def do_POST(self) -> None:
        """Run a query from URL, body or form, or insert data."""
        self._run()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 http.server names it
        """Log what http.server has to say, for those who debug."""
        logger.debug(format, *args)

    def _run(self) -> None:
        try:
            asked = request.parse(
                urlsplit(self.path).query, self.headers, body.pieces(cast("BinaryIO", self.rfile), self.headers)
            )
            if asked.insert_format:
                self._insert(asked)
            else:
                with self.server.watch.over(self.connection, asked.statement.query_id):
                    self._query(asked)
        except errors.ServerError as error:
            # What is left of the body would be taken for the next request.
            self.close_connection = True
            self._reply(error.status, error.body(self.server.engine.version), _error_headers(error))
        except ConnectionError:
            self.close_connection = True

    def _insert(self, asked: request.Request) -> None:
        rows, written = self.server.engine.insert(asked.statement, asked.insert_format, asked.data)
        summary = {"written_rows": str(rows), "written_bytes": str(written)}
        self._reply(HTTPStatus.OK, b"", self._headers(asked.statement, summary))

    def _query(self, asked: request.Request) -> None:
        with closing(self.server.engine.answer(asked.statement)) as pieces:
            if asked.wait_end_of_query:
                whole = b"".join(map(bytes, pieces))  # copied one by one: each piece ends with the next
                self._reply(HTTPStatus.OK, whole, self._headers(asked.statement, {}))
                return
            # The first piece decides between an answer and an error: until then no status is sent.
            first = next(pieces, b"")
            tag = secrets.token_hex(TAG_BYTES)
            headers = {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag}
            self._begin(HTTPStatus.OK, headers | self._headers(asked.statement, {}))
            self._stream(chain((first,), pieces), tag)

    def _stream(self, pieces: Iterator[memoryview | bytes], tag: str) -> None:
        try:
            for piece in pieces:
                self._chunk(piece)
        except errors.ServerError as error:
            self._chunk(_marked(error.body(self.server.engine.version), tag.encode()))
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, piece: memoryview | bytes) -> None:
        if piece:  # an empty chunk would end the answer
            self.wfile.write(b"%X\r\n" % len(piece))
            self.wfile.write(piece)
            self.wfile.write(b"\r\n")

    def _headers(self, statement: Statement, summary: dict[str, str]) -> dict[str, str]:
        return {
            "Content-Type": "application/octet-stream",
            "X-ClickHouse-Query-Id": statement.query_id,
            "X-ClickHouse-Format": statement.format,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(NOTHING_COUNTED | summary),
        }

    def _reply(self, status: HTTPStatus, content: bytes, headers: dict[str, str]) -> None:
        self._begin(status, {"Content-Length": str(len(content))} | headers)
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value.replace("\r", " ").replace("\n", " "))
        self.end_headers()


def _error_headers(error: errors.ServerError) -> dict[str, str]:
    return {
        "Content-Type": "text/plain; charset=UTF-8",
        "X-ClickHouse-Exception-Code": str(error.code),
        "Connection": "close",
    }


def _marked(message: bytes, tag: bytes) -> bytes:
    """Frame an exception as servers since 25.11 put it behind the rows that were already sent."""
    marker = b"__exception__\r\n"
    return b"\r\n%b%b\r\n%b%d %b\r\n%b" % (marker, tag, message, len(message), tag, marker)
