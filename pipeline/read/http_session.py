"""Keeps the statements of one export on one ClickHouse server, because replicas may lag behind each other."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from clickhouse_connect.driver.exceptions import DatabaseError

T = TypeVar("T")

TRIES = 30
TIMEOUT_SECONDS = 600
"""The server forgets a session that is not used for this long."""
_NOT_FOUND, _LOCKED = 372, 373
_PAUSE_SECONDS = 0.05


@dataclass
class HttpSession:
    """A session of the HTTP interface, which only the server that began it knows; for one statement at a time."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    begun: bool = False

    def run(self, send: Callable[[dict[str, object]], T], reconnect: Callable[[], None], stop: Callable[[], bool]) -> T:
        """Send a statement with the parameters of the session, and return the result.

        If another server than the first one gets the statement, it refuses it: the statement is sent again on a new
        connection, until the first server gets it. Raises the server's error after TRIES, or once `stop` returns true.
        """
        for left in reversed(range(TRIES)):
            try:
                result = send(self._parameters())
            except DatabaseError as error:
                if error.code not in {_NOT_FOUND, _LOCKED} or not left or stop():
                    raise
            else:
                self.begun = True
                return result
            time.sleep(_PAUSE_SECONDS)
            reconnect()
        raise AssertionError("the last try returns or raises")

    def _parameters(self) -> dict[str, object]:
        known = {"session_id": self.id, "session_timeout": TIMEOUT_SECONDS}
        return {**known, "session_check": 1} if self.begun else known
