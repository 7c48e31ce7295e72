"""A point where a proxy stops a request until the test decides what becomes of it."""

import threading
from dataclasses import dataclass, field

PATIENCE = 120.0


class Dropped(ConnectionError):
    """The test dropped the requests that waited at a barrier."""


@dataclass
class Barrier:
    """Blocks until the test releases or drops it; `arrived` is set when the first request waits."""

    arrived: threading.Event = field(default_factory=threading.Event)
    _decided: threading.Event = field(default_factory=threading.Event)
    _dropped: bool = False

    def wait(self) -> None:
        """Wait until the barrier is released; raises Dropped when it is dropped, or not released in time."""
        self.arrived.set()
        if not self._decided.wait(PATIENCE) or self._dropped:
            raise Dropped

    def wait_until_reached(self, seconds: float = PATIENCE) -> None:
        """Wait until a request waits at the barrier; AssertionError when none comes."""
        assert self.arrived.wait(seconds), f"no request reached the barrier within {seconds:g} s"

    def release(self) -> None:
        """Let all requests pass, those that wait and later ones."""
        self._decided.set()

    def drop(self) -> None:
        """Drop all requests, those that wait and later ones; a released barrier stays released."""
        if not self._decided.is_set():
            self._dropped = True
            self._decided.set()
