"""Stops the queries of clients that disconnect."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedded.clickhouse.errors import ServerError

POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


class DisconnectWatcher:
    """Checks the connections of all running queries in one thread."""

    def __init__(self, kill: Callable[[str], None]) -> None:
        """Start the thread; it calls `kill` with the ID of each query to stop."""
        self._kill = kill
        self._running: dict[socket.socket, str] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._poll, daemon=True).start()

    @contextmanager
    def watch(self, connection: socket.socket, query_id: str) -> Iterator[None]:
        """Watch the connection of a query while the block runs."""
        with self._lock:
            self._running[connection] = query_id
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(connection, None)

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            with self._lock:
                gone = {
                    connection: query_id
                    for connection, query_id in self._running.items()
                    if _is_disconnected(connection)
                }
            for query_id in gone.values():
                self._stop(query_id)

    def _stop(self, query_id: str) -> None:
        # It is called again until the query ends, because a query that has not started yet can't be stopped.
        try:
            self._kill(query_id)
        except ServerError:
            logger.warning(
                "could not stop the query of a disconnected client", extra={"query": query_id}, exc_info=True
            )


def _is_disconnected(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
