"""Tracks how far an export is, logs it, and stops the export when it is cancelled."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pyarrow as pa

from config.errors import Cancelled

logger = logging.getLogger(__name__)

DEBUG_ROWS = 5_000
INFO_ROWS = 100_000
WAITS = frozenset({"wait", "idle"})
"""The stages that measure how long one thread of an export waits for another."""


class Progress:
    """Counts how far an export is and stops it: the pipeline's thread writes; the heartbeat reads and stops.

    `stages` has the seconds spent in each stage so far.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self.stages: dict[str, float] = {}
        self._read: dict[str, float] = {}
        self.stalled = False
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._on_stop: list[Callable[[], None]] = []

    def read_busiest_stage(self) -> str | None:
        """Return the stage that took the most time since the last call; None if none has handled a batch since then.

        Waiting for another stage does not count.
        """
        now = dict(self.stages)
        taken = {name: seconds - self._read.get(name, 0.0) for name, seconds in now.items() if name not in WAITS}
        self._read = now
        busiest = max(taken, key=lambda name: taken[name], default=None)
        return busiest if busiest is not None and taken[busiest] > 0 else None

    @property
    def stopped(self) -> bool:
        """Whether somebody asked the export to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ask the export to stop, and unblock what it waits for; can be called from any thread, more than once."""
        with self._lock:
            self._stopped.set()
            callbacks, self._on_stop = self._on_stop, []
        # The last registered comes first: it waits for those before it, and to interrupt those may take long.
        for callback in reversed(callbacks):
            callback()

    def stall(self) -> None:
        """Stop the export because no row or byte has moved for too long, and set `stalled`."""
        self.stalled = True
        self.stop()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call `callback` at the stop any more."""
        with self._lock, suppress(ValueError):
            self._on_stop.remove(callback)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` at the stop, from the stopping thread; immediately if the export is stopped already."""
        with self._lock:
            late = self._stopped.is_set()
            if not late:
                self._on_stop.append(callback)
        if late:
            callback()


def watch(batches: Iterator[pa.RecordBatch], progress: Progress, export_id: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches and add their rows to `progress`; raises Cancelled once `progress` is stopped."""
    for batch in batches:
        if progress.stopped:
            raise Cancelled
        before = progress.rows
        progress.rows += batch.num_rows
        if before // DEBUG_ROWS != progress.rows // DEBUG_ROWS:
            level = logging.INFO if before // INFO_ROWS != progress.rows // INFO_ROWS else logging.DEBUG
            logger.log(level, "%d rows read", progress.rows, extra={"export_id": export_id, "rows": progress.rows})
        yield batch
