"""Measures the flow through the stages: seconds in each, bytes, checksum."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from types import TracebackType
from typing import Self, TypeVar

from config.labels import Stage
from config.metrics import Metrics
from pipeline.buffer import Chunk
from pipeline.prefetch import prefetch

T = TypeVar("T")


class ByteCounter:
    """Counts the bytes that pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def count(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks unchanged."""
        for chunk in chunks:
            self.bytes += len(chunk)
            yield chunk


class Checksum:
    """Computes the SHA-256 of the bytes that pass."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    @property
    def hex(self) -> str:
        """The checksum so far, in hexadecimal."""
        return self._sum.hexdigest()

    def add(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks unchanged."""
        for chunk in chunks:
            self._sum.update(chunk)
            yield chunk


class Flow:
    """The stages of one export, each of which pulls from the one before; measures the time of each.

    A stage is not charged for the time that it waits for the stage before it in the same thread. `seconds` has the
    sums of this export; `raw` and `stored` count its bytes before and after compression. Leaving the `with` block ends
    the threads of the prefetched stages, the last one first.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.seconds: dict[str, float] = {}
        self.raw = ByteCounter()
        self.stored = ByteCounter()
        self.checksum = Checksum()
        self._counter = metrics.stage_seconds
        self._thread = threading.local()
        self._prefetched = ExitStack()

    def stage(self, stage: Stage, source: Iterator[T]) -> Iterator[T]:
        """Yield the items of `source`, charging `stage`."""
        while True:
            with self.charge(stage):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def prefetch(self, stage: Stage, source: Iterator[T]) -> Iterator[T]:
        """Run the stages up to here in a thread of their own, and charge waiting for them to `stage`."""
        return self.stage(stage, self._prefetched.enter_context(closing(prefetch(source))))

    @contextmanager
    def charge(self, stage: Stage) -> Iterator[None]:
        """Charge the block's time to `stage`, less the time that is charged to other stages inside it."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._prefetched.close()
