"""Shuts the consumer's work down: running exports may finish for a while, the rest goes back to the queue."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from config.errors import Unavailable
from config.events import ExportRequested
from consumer.intake import Intake
from consumer.job_store import Jobs
from consumer.models import Claim
from consumer.slots import Slots
from runtime.publisher import Outgoing, Publisher
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long each step after the drain may take, such as stopping the exports that are still running."""


@dataclass(frozen=True, kw_only=True)
class Drain:
    """The shutdown of a worker whose `intake` is closed; exports get `seconds` to finish."""

    intake: Intake
    slots: Slots
    jobs: Jobs
    publisher: Publisher
    relay: Callable[[], Awaitable[None]]
    requests_topic: str
    seconds: float
    now: Callable[[], datetime]

    async def run(self) -> None:
        """Let running exports finish, stop and release the rest, and publish all events; never raises Unavailable."""
        await self.intake.finish_claims(GRACE_SECONDS)
        stopped = await self.slots.drain(self.seconds, GRACE_SECONDS)
        try:
            await asyncio.wait_for(self._release_all(stopped), GRACE_SECONDS)
        except TimeoutError:
            logger.warning("not everything was released in time; the sweepers of other workers do the rest")

    async def _release_all(self, stopped: list[Claim]) -> None:
        for claim in stopped:
            await self._release(claim)
        await self.relay()

    async def _release(self, claim: Claim) -> None:
        """Release the claim, and publish a new request event, so that another worker starts it immediately."""
        event = ExportRequested(project_id=claim.job.project_id, batch_export_id=claim.job.id)
        message = Outgoing(self.requests_topic, claim.job.id.encode(), event.encode())
        try:
            # The attempt has released it already, unless its thread hangs.
            await in_thread(self.jobs.release, claim, self.now())
            await in_thread(self.publisher.publish, [message])
        except Unavailable as error:
            logger.warning("a stopped export is left to the sweepers: %s", error, extra=claim.log_context())
