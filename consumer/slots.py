"""Runs claimed exports, each in a slot: a thread that works, and a heartbeat beside it on the event loop."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from config.labels import Outcome
from config.metrics import Metrics
from consumer.models import Claim, Hold
from pipeline.types import Progress
from runtime.threads import in_thread, start_in_thread

logger = logging.getLogger(__name__)

Work = Callable[[Claim, Progress], Outcome | None]
Beat = Callable[[Claim, Progress], Hold]


@dataclass(frozen=True)
class Rhythm:
    """How often a running export beats, how long its lease lasts without, how long nothing may move; seconds."""

    heartbeat: float
    lease: float
    stall: float


class Slots:
    """The exports that this process runs; used from the event loop only.

    `work` runs one export to its ending and `beat` extends its lease; both are called in threads. `on_end` is called
    on the event loop when an export has ended and its slot is free.
    """

    def __init__(
        self, size: int, *, work: Work, beat: Beat, on_end: Callable[[], None], rhythm: Rhythm, metrics: Metrics
    ) -> None:
        self._size = size
        self._work = work
        self._beat = beat
        self._on_end = on_end
        self._rhythm = rhythm
        self._metrics = metrics
        self._gate = asyncio.Semaphore(size)
        self._taken = 0
        self._running: dict[asyncio.Task[None], tuple[Claim, Progress]] = {}
        metrics.slots.set(size)

    @property
    def free(self) -> int:
        """How many slots nobody has taken."""
        return self._size - self._taken

    async def take(self) -> None:
        """Wait for a slot and hold it: `give_back` it, or `start` a claim in it."""
        await self._gate.acquire()
        self._taken += 1

    def give_back(self) -> None:
        """Free a slot that was taken and not used."""
        self._taken -= 1
        self._gate.release()

    def start(self, claim: Claim) -> None:
        """Run the claim in the slot that was taken for it, which is free again afterwards."""
        progress = Progress()
        task = asyncio.get_running_loop().create_task(self._attend(claim, progress))
        self._running[task] = (claim, progress)
        self._metrics.running.set(len(self._running))
        task.add_done_callback(self._ended)

    async def drain(self, seconds: float, grace: float) -> list[Claim]:
        """Let running exports finish for `seconds`, then stop the rest and give them `grace` to be put back.

        Returns the claims that were stopped.
        """
        if self._running:
            logger.info("waiting for running exports", extra={"exports": len(self._running), "seconds": seconds})
            await asyncio.wait(list(self._running), timeout=seconds)
        stopped = list(self._running.items())
        await asyncio.gather(*(in_thread(progress.stop) for _, (_, progress) in stopped))
        if stopped:
            await asyncio.wait([task for task, _ in stopped], timeout=grace)
        return [claim for _, (claim, _) in stopped]

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._metrics.running.set(len(self._running))
        self.give_back()
        self._on_end()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a slot failed", exc_info=error)

    async def _attend(self, claim: Claim, progress: Progress) -> None:
        work = start_in_thread(self._work, claim, progress)
        heart = asyncio.create_task(self._keep_alive(claim, progress))
        try:
            await work
        finally:
            heart.cancel()

    async def _keep_alive(self, claim: Claim, progress: Progress) -> None:
        """Beat until the claim no longer holds, no beat has come through for a lease, or nothing moves; then stop."""
        kept = moved = time.monotonic()
        seen = (progress.rows, progress.bytes)
        beat: asyncio.Future[Hold] | None = None
        while True:
            await asyncio.sleep(self._rhythm.heartbeat)
            beat = beat or start_in_thread(self._beat, claim, progress)
            await asyncio.wait({beat}, timeout=self._rhythm.heartbeat)
            hold = None
            if beat.done():
                hold, beat = _answer(beat, claim), None
            if hold is Hold.KEPT:
                kept = time.monotonic()
            elif hold is not None or time.monotonic() - kept > self._rhythm.lease:
                logger.info("stopping: the claim is %s", hold or "out of reach", extra=claim.log_context())
                await in_thread(progress.stop)
                return
            if seen != (progress.rows, progress.bytes):
                seen, moved = (progress.rows, progress.bytes), time.monotonic()
            elif time.monotonic() - moved > self._rhythm.stall:
                # Nor is there another beat: if the stop does not help either, the lease runs out.
                logger.warning("stopping: nothing moves", extra=claim.log_context() | {"rows": progress.rows})
                await in_thread(progress.stall)
                return


def _answer(beat: asyncio.Future[Hold], claim: Claim) -> Hold | None:
    error = beat.exception()
    if error is None:
        return beat.result()
    logger.warning("a heartbeat failed: %s", error, extra=claim.log_context())
    return None
