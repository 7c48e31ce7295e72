"""A place where a proxy stops and waits for what the test decides."""

import threading
from dataclasses import dataclass, field

PATIENCE = 120.0


class Dropped(ConnectionError):
    """The test decided that what waited at a gate never arrives."""


@dataclass
class Gate:
    """Closed until the test opens it; `arrived` says that somebody stands before it."""

    arrived: threading.Event = field(default_factory=threading.Event)
    _decided: threading.Event = field(default_factory=threading.Event)
    _dropped: bool = False

    def stand(self) -> None:
        """Wait until the gate is opened; raises Dropped when it is not to be passed."""
        self.arrived.set()
        if not self._decided.wait(PATIENCE) or self._dropped:
            raise Dropped

    def reached(self, seconds: float = PATIENCE) -> None:
        """Wait until somebody stands before the gate; AssertionError when nobody comes."""
        assert self.arrived.wait(seconds), f"nobody came to the gate within {seconds:g} s"

    def open(self) -> None:
        """Let pass whoever stands there, and all who come."""
        self._decided.set()

    def drop(self) -> None:
        """Cut off whoever stands there, and all who come; an open gate stays open."""
        if not self._decided.is_set():
            self._dropped = True
            self._decided.set()
