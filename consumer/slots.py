"""Runs claimed exports, each in a slot: a thread that works, and its heartbeat on the event loop."""

import asyncio
import logging
from collections.abc import Callable

from config.labels import Outcome
from config.metrics import Metrics
from consumer.heartbeat import ExtendLease, Timing, keep_alive
from consumer.models import Claim
from pipeline.progress import Progress
from runtime.threads import in_thread, start_in_thread

logger = logging.getLogger(__name__)

Work = Callable[[Claim, Progress], Outcome | None]
"""Runs one export until its outcome is written; called in a thread."""


class Slots:
    """The exports that this process runs; used from the event loop only.

    `on_end` is called on the event loop when an export has ended and its slot is free.
    """

    def __init__(
        self,
        size: int,
        *,
        work: Work,
        extend_lease: ExtendLease,
        on_end: Callable[[], None],
        timing: Timing,
        metrics: Metrics,
    ) -> None:
        self._size = size
        self._work = work
        self._extend_lease = extend_lease
        self._on_end = on_end
        self._timing = timing
        self._metrics = metrics
        self._available = asyncio.Semaphore(size)
        self._taken = 0
        self._running: dict[asyncio.Task[None], tuple[Claim, Progress]] = {}
        metrics.slots.set(size)

    @property
    def free(self) -> int:
        """The number of slots that are not taken."""
        return self._size - self._taken

    async def take(self) -> None:
        """Wait for a slot and take it; then either `start` a claim in it or `give_back` it."""
        await self._available.acquire()
        self._taken += 1

    def give_back(self) -> None:
        """Free a slot that was taken and not used."""
        self._taken -= 1
        self._available.release()

    def start(self, claim: Claim) -> None:
        """Run the claim in the slot that was taken for it, and free the slot afterwards."""
        progress = Progress()
        task = asyncio.get_running_loop().create_task(self._run(claim, progress))
        self._running[task] = (claim, progress)
        self._metrics.running.set(len(self._running))
        task.add_done_callback(self._ended)

    async def drain(self, seconds: float, grace: float) -> list[Claim]:
        """Let running exports finish for `seconds`, then stop the rest and wait `grace` seconds for them to end.

        Returns the claims that were stopped.
        """
        if self._running:
            logger.info("waiting for running exports to end", extra={"exports": len(self._running), "seconds": seconds})
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

    async def _run(self, claim: Claim, progress: Progress) -> None:
        working = start_in_thread(self._work, claim, progress)
        heartbeat = asyncio.create_task(keep_alive(claim, progress, self._extend_lease, self._timing))
        try:
            await working
        finally:
            heartbeat.cancel()
