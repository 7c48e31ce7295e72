"""Names what flows through the stages: columns of record batches, the progress that watches them, the result."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

JSON_FLAG = "#json"
"""Suffix of the boolean companion column of a MAYBE_JSON column."""

CELLS = "#cells"
"""Name of the one column that the cells of all SPARSE columns come in."""


class Kind(Enum):
    """What a column's values mean; an encoder knows one way to write each kind.

    The Arrow types that a reader hands over for each kind:

    - TEXT: string
    - BOOL: bool
    - INTEGER: any int
    - NUMBER: double
    - DECIMAL: decimal128
    - INSTANT: timestamp[ms|us, UTC]
    - JSON: string; null, or always one valid JSON text (an object or array made by us or by the database)
    - MAYBE_JSON: string that may hold a JSON text; a bool column named `<name>#json` tells which cells do
    - LIST: list<string> or list<double>
    - MIXED: string; null, or the JSON text of a list of strings and numbers, with no needless escapes; Parquet alone
      meets it, for the other formats have SPARSE
    - SPARSE: these come last, and all in one column named CELLS, of lists, sorted, of what the row has: structs of the
      column's place among them (from 1) and its text, one valid JSON text on one line, with no needless escapes
    """

    TEXT = auto()
    BOOL = auto()
    INTEGER = auto()
    NUMBER = auto()
    DECIMAL = auto()
    INSTANT = auto()
    JSON = auto()
    MAYBE_JSON = auto()
    LIST = auto()
    MIXED = auto()
    SPARSE = auto()


@dataclass(frozen=True)
class Column:
    """One column of the file: its name there, and what its values mean."""

    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """One finished object: what its manifest says, and what the run, the event and the mail repeat.

    `rows` are rows in the file, `raw_bytes` its size before compression, `bytes` its size as stored, `sha256` (hex)
    that of the stored bytes; `truncated` when the row limit cut it.
    """

    key: str
    rows: int
    raw_bytes: int
    bytes: int
    sha256: str
    truncated: bool
    columns: tuple[str, ...]
    cutoff: datetime


class Progress:
    """How far an export is, and the way to stop it: the pipeline's thread writes, the heartbeat reads and stops.

    `stages` has the seconds spent in each stage so far.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self.stages: dict[str, float] = {}
        self.stalled = False
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._on_stop: list[Callable[[], None]] = []

    @property
    def stopped(self) -> bool:
        """Whether somebody asked the export to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ask the export to stop, and unblock what it waits for; safe from any thread, more than once."""
        with self._lock:
            self._stopped.set()
            callbacks, self._on_stop = self._on_stop, []
        # The latest first: what waits on top is freed before what lies below is asked to end, which may take its time.
        for callback in reversed(callbacks):
            callback()

    def stall(self) -> None:
        """Stop it because nothing has moved for too long; `stalled` then tells so."""
        self.stalled = True
        self.stop()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call `callback` any more; what has passed needs no stopping."""
        with self._lock, suppress(ValueError):
            self._on_stop.remove(callback)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` (from the stopping thread) at the stop, or at once when it has come already."""
        with self._lock:
            late = self._stopped.is_set()
            if not late:
                self._on_stop.append(callback)
        if late:
            callback()
