"""Notices clients that go away while their query runs, and has it stopped."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedded.clickhouse.errors import ServerError

PAUSE_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Watch:
    """One thread that looks after the connections of all running queries."""

    def __init__(self, kill: Callable[[str], None]) -> None:
        """Take what stops a query; it is called with the query's id from the watching thread."""
        self._kill = kill
        self._running: dict[socket.socket, str] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._look, daemon=True).start()

    @contextmanager
    def over(self, connection: socket.socket, query_id: str) -> Iterator[None]:
        """Watch the connection for as long as the block runs."""
        with self._lock:
            self._running[connection] = query_id
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(connection, None)

    def _look(self) -> None:
        while True:
            time.sleep(PAUSE_SECONDS)
            with self._lock:
                gone = {connection: query_id for connection, query_id in self._running.items() if _is_gone(connection)}
            for query_id in gone.values():
                self._stop(query_id)

    def _stop(self, query_id: str) -> None:
        # Called again at every look until the query has ended: it may not have begun yet, or not heed the first call.
        try:
            self._kill(query_id)
        except ServerError:
            logger.warning(
                "a query whose client went away could not be stopped", extra={"query": query_id}, exc_info=True
            )


def _is_gone(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
