"""Serves HTTP: routes, headers, chunked responses, exceptions before and within a response."""

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

from embedded.clickhouse import errors
from embedded.clickhouse.disconnects import DisconnectWatcher
from embedded.clickhouse.engine import Engine
from embedded.clickhouse.request import Request, parse_request
from embedded.clickhouse.request_body import read_body
from embedded.clickhouse.statement import Statement

HEALTH_PATHS = ("/ping", "/replicas_status")
TAG_BYTES = 8
# The summary is sent before the response, when nothing has been counted yet.
EMPTY_SUMMARY = dict.fromkeys(
    ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows", "result_bytes"),
    "0",
)

logger = logging.getLogger(__name__)


class ClickHouseServer(ThreadingHTTPServer):
    """Serves one engine on a loopback port, each connection in a thread.

    Any user and password are accepted. Sessions and compressed responses are not supported, and requests for them
    are ignored.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine
        self.watcher = DisconnectWatcher(engine.kill)


class Handler(BaseHTTPRequestHandler):
    """The connection of one client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ClickHouseServer

    def do_GET(self) -> None:
        """Respond to a health check, or run the query of the URL."""
        if urlsplit(self.path).path in HEALTH_PATHS:
            self._reply(HTTPStatus.OK, b"Ok.\n", {})
        else:
            self._run()

    def do_POST(self) -> None:
        """Run the query of URL, body or form, or insert data."""
        self._run()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 http.server names it
        """Log the messages of http.server at debug level."""
        logger.debug(format, *args)

    def _run(self) -> None:
        try:
            body = read_body(cast("BinaryIO", self.rfile), self.headers)
            request = parse_request(urlsplit(self.path).query, self.headers, body)
            if request.insert_format:
                self._insert(request)
            else:
                with self.server.watcher.watch(self.connection, request.statement.query_id):
                    self._query(request)
        except errors.ServerError as error:
            # The rest of the body would be read as the next request.
            self.close_connection = True
            self._reply(error.status, error.body(self.server.engine.version), _error_headers(error))
        except ConnectionError:
            self.close_connection = True

    def _insert(self, request: Request) -> None:
        rows, written = self.server.engine.insert(request.statement, request.insert_format, request.data)
        summary = {"written_rows": str(rows), "written_bytes": str(written)}
        self._reply(HTTPStatus.OK, b"", self._headers(request.statement, summary))

    def _query(self, request: Request) -> None:
        with closing(self.server.engine.run(request.statement)) as blocks:
            if request.wait_end_of_query:
                whole = b"".join(map(bytes, blocks))  # each block must be copied before the next one is requested
                self._reply(HTTPStatus.OK, whole, self._headers(request.statement, {}))
                return
            # The first block decides between a response and an error, so no status is sent before it.
            first = next(blocks, b"")
            tag = secrets.token_hex(TAG_BYTES)
            headers = {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag}
            self._begin(HTTPStatus.OK, headers | self._headers(request.statement, {}))
            self._stream(chain((first,), blocks), tag)

    def _stream(self, blocks: Iterator[memoryview | bytes], tag: str) -> None:
        try:
            for block in blocks:
                self._send_chunk(block)
        except errors.ServerError as error:
            self._send_chunk(_frame_exception(error.body(self.server.engine.version), tag.encode()))
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, block: memoryview | bytes) -> None:
        if block:  # an empty chunk would end the response
            self.wfile.write(b"%X\r\n" % len(block))
            self.wfile.write(block)
            self.wfile.write(b"\r\n")

    def _headers(self, statement: Statement, summary: dict[str, str]) -> dict[str, str]:
        return {
            "Content-Type": "application/octet-stream",
            "X-ClickHouse-Query-Id": statement.query_id,
            "X-ClickHouse-Format": statement.format,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(EMPTY_SUMMARY | summary),
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


def _frame_exception(message: bytes, tag: bytes) -> bytes:
    """Frame an exception as servers since 25.11 append it to rows that were already sent."""
    marker = b"__exception__\r\n"
    return b"\r\n%b%b\r\n%b%d %b\r\n%b" % (marker, tag, message, len(message), tag, marker)
