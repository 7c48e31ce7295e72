"""Keeps the lease of a running export alive, and stops the export when it is lost, cancelled or stalled."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from consumer.models import Claim, LeaseState
from pipeline.progress import Progress
from runtime.threads import in_thread, start_in_thread

logger = logging.getLogger(__name__)

ExtendLease = Callable[[Claim, Progress], LeaseState]
"""Extends the lease of a claim and records the progress; called in a thread, may raise."""

_REASONS = {
    LeaseState.CANCELLED: "the user cancelled it",
    LeaseState.LOST: "its lease is lost",
    None: "its lease could not be confirmed",
}
"""Why an export is stopped, by the state of its lease."""


@dataclass(frozen=True)
class Timing:
    """In seconds: between two heartbeats, until a lease expires, and until an export without progress is stopped."""

    heartbeat: float
    lease: float
    stall: float


async def keep_alive(claim: Claim, progress: Progress, extend_lease: ExtendLease, timing: Timing) -> None:
    """Extend the lease at every heartbeat until the export has to stop, then stop it.

    It has to stop when the claim is lost or cancelled, when no heartbeat has succeeded for the time of a lease, or
    when no row was read and no byte was written for `timing.stall`.
    """
    kept = moved = time.monotonic()
    seen = (progress.rows, progress.bytes)
    extending: asyncio.Future[LeaseState] | None = None
    while True:
        await asyncio.sleep(timing.heartbeat)
        extending = extending or start_in_thread(extend_lease, claim, progress)
        await asyncio.wait({extending}, timeout=timing.heartbeat)
        state = None
        if extending.done():
            state, extending = _read_state(extending, claim), None
        if state is LeaseState.KEPT:
            kept = time.monotonic()
        elif state is not None or time.monotonic() - kept > timing.lease:
            logger.info("stopping the export: %s", _REASONS[state], extra=claim.log_context())
            await in_thread(progress.stop)
            return
        if seen != (progress.rows, progress.bytes):
            seen, moved = (progress.rows, progress.bytes), time.monotonic()
        elif time.monotonic() - moved > timing.stall:
            # No more heartbeats: if the export doesn't stop, its lease expires.
            logger.warning(
                "stopping the export: it makes no progress", extra=claim.log_context() | {"rows": progress.rows}
            )
            await in_thread(progress.stall)
            return


def _read_state(extending: asyncio.Future[LeaseState], claim: Claim) -> LeaseState | None:
    error = extending.exception()
    if error is None:
        return extending.result()
    logger.warning("a heartbeat failed: %s", error, extra=claim.log_context())
    return None
