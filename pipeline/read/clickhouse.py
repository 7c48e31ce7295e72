"""Reads from ClickHouse over HTTP for one export; its statements end immediately when the export is stopped."""

import logging
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pyarrow as pa
from clickhouse_connect.driver.external import ExternalData

from config.errors import Cancelled, Rejected, Unavailable
from pipeline.progress import Progress
from pipeline.read.arrow_stream import read_stream
from pipeline.read.clickhouse_errors import CLIENT_ERRORS, OutOfMemory, translate_client_error
from pipeline.read.clickhouse_settings import BOUNDED, REQUIRED
from pipeline.read.connect import list_optional, open_client
from pipeline.read.connections import ClickHouse
from pipeline.read.http_session import HttpSession
from pipeline.sql.compile import CompiledStatement
from pipeline.sql.statements import Statement

logger = logging.getLogger(__name__)

T = TypeVar("T")

STATEMENT_BYTES = (128 << 10) - 64
"""The longest statement that can be sent beside its parameters: the server's limit of a form field, less the format.

Parameters that are too long for the URL are sent in a form.
"""


class ClickHouseConnection:
    """The ClickHouse connection of one export; used by one thread, stopped from any through `progress`.

    A statement that takes too much memory is run again with `bounded` memory, and so are all that follow.

    All its statements are answered by one server, if there are several behind the URL.

    `absent` are the columns that the tables do not have; statements read null for them. `null_columns` are those that
    were read so far, as `table.column`.

    Its methods raise Unavailable when the server fails or can't be reached, Cancelled once `progress` is stopped, and
    Rejected for a statement that is too long, or for a table that is missing. Making one raises them too: Rejected if
    the user may not set what the rows depend on, or if a table lacks a column that every Langfuse has.
    """

    def __init__(self, source: ClickHouse, progress: Progress, *, bounded: bool = False) -> None:
        self.bounded = bounded
        self._progress = progress
        self._lock = threading.Lock()
        self._running: dict[str, Any] = {}
        self._on_statement = source.on_statement
        self._reusable = True
        self._pool, self._statements = source.pool, source.statements
        self._pooled = self._pool.take() or self._unless_stopped(lambda: open_client(source))
        self._client = self._pooled.client
        self.server = self._pooled.server
        self.null_columns: set[str] = set()
        self._session = HttpSession()
        with self._closed_if_rejected():
            self.absent = self.server.find_absent()
            limits, wanted = self.server.limits, list_optional(source.tuning, self.server)
            self._settings = limits.require(REQUIRED) | limits.choose(wanted)
        progress.on_stop(self._stop)

    def batches(
        self,
        statement: Statement,
        external: ExternalData | None = None,
        *,
        bounded: Statement | None = None,
        **settings: object,
    ) -> Generator[pa.RecordBatch]:
        """Run a statement, with the external tables sent along, and yield its rows.

        The first batch may take long, because the server sorts first. `bounded` is a statement with the same rows
        that takes less memory, and more time.
        """
        begun = False
        while True:
            chosen = bounded if self.bounded and bounded is not None else statement
            try:
                for batch in self._run(chosen, external, settings):
                    begun = True
                    yield batch
            except OutOfMemory as error:
                if begun or self.bounded:
                    raise
                logger.warning("a statement runs again with less memory: %s", error)
                self.bounded = True
            else:
                return

    def _run(
        self, statement: Statement, external: ExternalData | None, settings: dict[str, object]
    ) -> Generator[pa.RecordBatch]:
        query = self._statements.compile(statement, self.absent)
        self.null_columns |= query.absent
        if (size := len(query.sql.encode())) > STATEMENT_BYTES:
            raise Rejected(
                f"The query has too many filters: its statement has {size:,} bytes, and {STATEMENT_BYTES:,} at most."
            )
        query_id = str(uuid.uuid4())
        logger.debug("sent a query", extra={"query_id": query_id})
        self._on_statement(query.sql, query.parameters)
        with self._lock:
            self._running[query_id] = None
        try:
            body = self._unless_stopped(lambda: self._open(query, external, query_id, settings))
            with self._lock:
                self._running[query_id] = body
            yield from read_stream(body)
        except Unavailable:
            self._reusable = False
            self._raise_if_stopped()
            raise
        finally:
            with self._lock:
                body = self._running.pop(query_id)
            if body is not None:
                body.close()

    def rows(self, statement: Statement) -> list[dict[str, Any]]:
        """Run a statement with few rows, and return them."""
        return [row for batch in self.batches(statement) for row in batch.to_pylist()]

    def close(self) -> None:
        """Give back the client, or close it; a stream that is still being read then fails."""
        if self._reusable and not self._progress.stopped:
            self._pool.give_back(self._pooled)
        else:
            self._client.close()

    @contextmanager
    def _closed_if_rejected(self) -> Iterator[None]:
        try:
            yield
        except Rejected:
            self.close()
            raise

    def _open(
        self, query: CompiledStatement, external: ExternalData | None, query_id: str, settings: dict[str, object]
    ) -> Any:
        wanted = settings | BOUNDED if self.bounded else settings

        def send(session: dict[str, object]) -> Any:
            return self._client.raw_stream(
                query.sql,
                parameters=query.parameters,
                fmt="ArrowStream",
                settings={**self._settings, **self.server.limits.choose(wanted), **session, "query_id": query_id},
                external_data=external,
            )

        return self._session.run(send, self._client.close_connections, lambda: self._progress.stopped)

    def _unless_stopped(self, call: Callable[[], T]) -> T:
        """Return what the call returns, or raise Cancelled as soon as the export is stopped.

        A server may send no headers for minutes; a thread waits for it instead of the caller.
        """
        future: Future[T] = Future()
        self._progress.on_stop(lambda: _give_up(future))
        threading.Thread(target=_settle, args=(future, call), name="waybill-clickhouse", daemon=True).start()
        try:
            return future.result()
        except CancelledError as error:
            raise Cancelled from error
        except CLIENT_ERRORS as error:
            self._reusable = False
            self._raise_if_stopped()
            raise translate_client_error(error) from error

    def _raise_if_stopped(self) -> None:
        if self._progress.stopped:
            raise Cancelled

    def _stop(self) -> None:
        with self._lock:
            running = dict(self._running)
        for query_id, body in running.items():
            if body is not None:
                with suppress(OSError, RuntimeError, ValueError):  # it has already ended
                    body.shutdown()
            self._kill(query_id)

    def _kill(self, query_id: str) -> None:
        try:
            self._client.command("KILL QUERY WHERE query_id = {id:String} ASYNC", parameters={"id": query_id})
        except CLIENT_ERRORS as error:
            # The server also stops a query whose client has disconnected.
            logger.info("could not kill a query", extra={"query_id": query_id, "reason": type(error).__name__})


def _give_up(future: Future[Any]) -> None:
    future.cancel()


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    """Put the result of the call into the future; if the caller has given up, close the result."""
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 (raised to the caller that waits)
        with suppress(InvalidStateError):
            future.set_exception(error)
        return
    try:
        future.set_result(value)
    except InvalidStateError:
        with suppress(*CLIENT_ERRORS):
            value.close()  # type: ignore[attr-defined] # a client or a response body: both have it
