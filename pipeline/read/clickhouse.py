"""Talks to ClickHouse over HTTP for one export: streams of batches, stopped at once when the export is."""

import logging
import threading
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.external import ExternalData
from sqlalchemy import Select
from urllib3 import HTTPConnectionPool

from config.errors import Cancelled, Unavailable
from pipeline.read import arrow_stream as wire
from pipeline.read.client_pool import connected
from pipeline.read.connections import ClickHouse
from pipeline.read.faults import FAULTS, translated
from pipeline.sql.clickhouse import CompiledStatement, compile_statement
from pipeline.types import Progress

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 10
SILENT_SECONDS = 300
SPILL_BYTES = 1 << 30

SETTINGS: dict[str, object] = {
    # The slowest reader is a big upload over a slow line: hours, and minutes between two reads.
    "max_execution_time": 12 * 3600,
    "timeout_before_checking_execution_speed": 0,
    "http_send_timeout": 1800,
    "http_receive_timeout": 1800,
    "cancel_http_readonly_queries_on_client_close": 1,
    # Headers keep the line alive before the first byte; Python takes 100 of them, so this lasts for over an hour.
    "send_progress_in_http_headers": 1,
    "http_headers_progress_interval_ms": 45_000,
    # Filters see the latest versions only: nothing is left out before FINAL has merged.
    "optimize_move_to_prewhere_if_final": 0,
    "use_skip_indexes_if_final": 0,
    "defer_partition_pruning_after_final": 1,
    "do_not_merge_across_partitions_select_final": 1,
    "enable_shared_storage_snapshot_in_query": 1,
    # The tables are sorted by the server's own days.
    "session_timezone": "",
    # A join that may spill loses the order that the table is read in, and sorting whole rows costs more than it saves.
    "join_algorithm": "hash",
    "query_plan_join_swap_table": "false",
    "query_plan_convert_outer_join_to_inner_join": 0,
    "max_bytes_before_external_join": 0,
    "max_bytes_ratio_before_external_join": 0,
    "join_use_nulls": 0,
    "max_bytes_before_external_sort": SPILL_BYTES,
    "max_bytes_before_external_group_by": SPILL_BYTES,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_string_as_string": 1,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 0,
}


class Server:
    """A connection of one export; use it from one thread, and stop it from any.

    Raises Unavailable when the server fails or cannot be reached, Cancelled once `progress` is stopped.
    """

    def __init__(self, source: ClickHouse, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._running: dict[str, Any] = {}
        self._seen = source.seen
        self._sound = True
        self._clients = source.clients
        self._connected = self._clients.take() or connected(self._unless_stopped(lambda: _connect(source)))
        self._client = self._connected.client
        known = self._client.server_settings
        self._settings = {name: value for name, value in SETTINGS.items() if name in known and not known[name].readonly}
        progress.on_stop(self._stop)

    def batches(
        self, statement: Select[Any], sent: ExternalData | None = None, **settings: object
    ) -> Generator[pa.RecordBatch]:
        """Run a statement, with the tables that it brings, and yield its rows.

        The first batch may come late, for sorts come first.
        """
        query = compile_statement(statement)
        query_id = str(uuid.uuid4())
        logger.debug("query sent", extra={"query_id": query_id})
        self._seen(query.sql, query.parameters)
        with self._lock:
            self._running[query_id] = None
        try:
            body = self._unless_stopped(lambda: self._open(query, sent, query_id, settings))
            with self._lock:
                self._running[query_id] = body
            yield from wire.batches(body)
        except Unavailable:
            self._sound = False
            self._raise_if_stopped()
            raise
        finally:
            with self._lock:
                body = self._running.pop(query_id)
            if body is not None:
                body.close()

    def rows(self, statement: Select[Any]) -> list[dict[str, Any]]:
        """Run a statement that gives few rows, and return them."""
        return [row for batch in self.batches(statement) for row in batch.to_pylist()]

    def close(self) -> None:
        """Let go of the connections; a stream that is still read ends as cut."""
        if self._sound and not self._progress.stopped:
            self._clients.give_back(self._connected)
        else:
            self._client.close()

    def _open(
        self, query: CompiledStatement, sent: ExternalData | None, query_id: str, settings: dict[str, object]
    ) -> Any:
        return self._client.raw_stream(
            query.sql,
            parameters=query.parameters,
            fmt="ArrowStream",
            settings={**self._settings, **settings, "query_id": query_id, "log_comment": "waybill"},
            external_data=sent,
        )

    def _unless_stopped(self, call: Callable[[], T]) -> T:
        """Return what the call returns, or raise Cancelled as soon as the export is stopped.

        A server that is silent before its headers would hold the caller for minutes; a thread waits for it instead.
        """
        answer: Future[T] = Future()
        self._progress.on_stop(lambda: _give_up(answer))
        threading.Thread(target=_settle, args=(answer, call), name="waybill-clickhouse", daemon=True).start()
        try:
            return answer.result()
        except CancelledError as error:
            raise Cancelled from error
        except FAULTS as error:
            self._sound = False
            self._raise_if_stopped()
            raise translated(error) from error

    def _raise_if_stopped(self) -> None:
        if self._progress.stopped:
            raise Cancelled

    def _stop(self) -> None:
        with self._lock:
            running = dict(self._running)
        for query_id, body in running.items():
            if body is not None:
                with suppress(OSError, RuntimeError, ValueError):  # it has ended meanwhile
                    body.shutdown()
            self._kill(query_id)

    def _kill(self, query_id: str) -> None:
        try:
            self._client.command("KILL QUERY WHERE query_id = {id:String} ASYNC", parameters={"id": query_id})
        except FAULTS as error:
            # The server also stops a query whose client went away.
            logger.info("query not killed", extra={"query_id": query_id, "reason": type(error).__name__})


def _connect(source: ClickHouse) -> Client:
    url = urlsplit(source.url)
    client = get_client(
        interface=url.scheme,
        host=url.hostname or "localhost",
        port=url.port or (8443 if url.scheme == "https" else 8123),
        username=unquote(url.username) if url.username else source.user,
        password=unquote(url.password) if url.password else source.password,
        database=source.database,
        proxy_path=url.path,
        compress=False,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=SILENT_SECONDS,
        autogenerate_session_id=False,
        show_clickhouse_errors="scrub",
        dedicated_pool=True,
        client_name="waybill",
    )
    # Else connections that are let go of stay open until the garbage collector finds them.
    client.http.pools.dispose_func = HTTPConnectionPool.close  # type: ignore[attr-defined] # its interface is HTTP
    return client


def _give_up(answer: Future[Any]) -> None:
    answer.cancel()


def _settle(answer: Future[T], call: Callable[[], T]) -> None:
    """Put what the call gives into the answer; what nobody waits for any more is closed."""
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 (raised where the answer is waited for)
        with suppress(InvalidStateError):
            answer.set_exception(error)
        return
    try:
        answer.set_result(value)
    except InvalidStateError:
        with suppress(*FAULTS):
            value.close()  # type: ignore[attr-defined] # a client or an answer's body: both close
