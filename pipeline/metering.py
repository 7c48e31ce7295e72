"""Measures what flows between the stages: seconds spent in each, bytes that pass, uploads that end."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from config.labels import Stage, UploadOutcome
from config.metrics import Metrics
from pipeline.encode.options import Chunk
from pipeline.storage.types import Upload

T = TypeVar("T")


class Stages:
    """Charges time to stages that pull from one another: waiting for a stage below is that stage's time.

    Stage names are labels of `waybill_stage_seconds_total`. Each thread's stages are told apart. `seconds`
    has the sums of this export.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.seconds: dict[str, float] = {}
        self._counter = metrics.stage_seconds
        self._thread = threading.local()

    def timed(self, stage: Stage, source: Iterator[T]) -> Iterator[T]:
        """Yield what `source` yields, charging `stage`."""
        while True:
            with self.spent(stage):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def spent(self, stage: Stage) -> Iterator[None]:
        """Charge the block's time to `stage`, less what stages inside of it are charged."""
        inside: list[float] = self._thread.__dict__.setdefault("inside", [])
        inside.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            alone = max(0.0, taken - inside.pop())
            self._counter.labels(stage).inc(alone)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + alone
            if inside:
                inside[-1] += taken


@contextmanager
def counted(upload: Upload, metrics: Metrics) -> Iterator[Upload]:
    """Enter the upload, and count how it ended: completed when the block ends by itself, else aborted."""
    outcome: UploadOutcome = "aborted"
    try:
        with upload:
            yield upload
            outcome = "completed"
    finally:
        metrics.uploads.labels(outcome).inc()


class Tally:
    """Counts the bytes that pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def counted(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks as they are."""
        for chunk in chunks:
            self.bytes += len(chunk)
            yield chunk


class Checksum:
    """Sums up the bytes that pass, with SHA-256."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    @property
    def hex(self) -> str:
        """The sum so far, in hexadecimal."""
        return self._sum.hexdigest()

    def summed(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks as they are."""
        for chunk in chunks:
            self._sum.update(chunk)
            yield chunk
