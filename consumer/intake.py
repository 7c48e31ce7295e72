"""Answers events, and takes up exports that nobody rang for: each ends as a claim, a refusal or a dead letter."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from config.errors import Unavailable
from config.events import ExportRequested, Malformed, read_request
from config.labels import Verdict
from config.metrics import Metrics
from consumer.claim import Admission, verdict_on
from consumer.dead_letters import Received, bury
from consumer.guards import Reaction, Refusal
from consumer.models import Claim, Job
from consumer.slots import Slots
from runtime.publisher import Publisher
from runtime.threads import in_thread
from runtime.tracing import read_traceparent

logger = logging.getLogger(__name__)

R = TypeVar("R")

LOOKS_AGAIN = (0.25, 0.5, 1.0)
"""Seconds between looks for a row that may not be committed yet."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
BUG_TRIES = 5


class Closed(Exception):
    """The worker takes nothing up any more; what was asked is undone and left for others."""


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What answering takes; once `closed` is set, nothing is taken up any more, and nothing while `outbox_full` is."""

    admission: Admission
    slots: Slots
    publisher: Publisher
    dead_letter_topic: str
    metrics: Metrics
    closed: asyncio.Event
    outbox_full: asyncio.Event = field(default_factory=asyncio.Event)
    _claiming: set[asyncio.Task[Claim | Refusal]] = field(default_factory=set)

    async def answer(self, message: Received) -> None:
        """Deal with one event; when this returns, what became of it is durable.

        Waits while a slot, the database or Kafka is out of reach. Raises Closed, and then the event is not done.
        """
        try:
            request = read_request(message.value)
        except Malformed as error:
            await self._bury(message, Verdict.MALFORMED, str(error))
            return
        try:
            answer = await self._decide(request, read_traceparent(message.headers))
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 (`_insist` has logged it; one event must not hold up all others)
            await self._bury(message, Verdict.BUG, f"it can't be answered: {type(error).__name__}")
            return
        if isinstance(answer, Refusal) and answer.reaction in {Reaction.DEAD_LETTER, Reaction.LOOK_AGAIN}:
            await self._bury(message, answer.verdict, answer.reason)
        else:
            self._note(request.project_id, request.batch_export_id, answer)

    async def take_up(self, job: Job) -> None:
        """Start an export that no event came for, or do what its refusal asks for; raises Closed and Unavailable."""
        self._note(job.project_id, job.id, await self._admit(job.project_id, job.id, None))

    async def settle(self, seconds: float) -> None:
        """Wait for claims that are being made now to come to their slots."""
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=seconds)

    async def _decide(self, request: ExportRequested, traceparent: str | None) -> Claim | Refusal:
        for pause in LOOKS_AGAIN:
            answer = await self._insist(partial(self._try, request, traceparent))
            if not isinstance(answer, Refusal) or answer.reaction is not Reaction.LOOK_AGAIN:
                return answer
            await asyncio.sleep(pause)
        return await self._insist(partial(self._try, request, traceparent))

    async def _try(self, request: ExportRequested, traceparent: str | None) -> Claim | Refusal:
        if not self.slots.free:
            # What will be refused anyway need not wait for a slot, perhaps for hours.
            refusal = await in_thread(self.admission.look, request.project_id, request.batch_export_id)
            if refusal is not None and refusal.reaction is not Reaction.FAIL:
                return refusal
        return await self._admit(request.project_id, request.batch_export_id, traceparent)

    async def _admit(self, project_id: str, export_id: str, traceparent: str | None) -> Claim | Refusal:
        if self.outbox_full.is_set():
            raise Unavailable("too many events wait for Kafka: nothing new is claimed")
        await self.slots.take()
        if self.closed.is_set():
            self.slots.give_back()
            raise Closed
        # Faust cancels agents as it pleases: a claim that is being made must still come to its slot.
        claiming = asyncio.create_task(self._claim(project_id, export_id, traceparent))
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        return await asyncio.shield(claiming)

    async def _claim(self, project_id: str, export_id: str, traceparent: str | None) -> Claim | Refusal:
        try:
            answer = await in_thread(self.admission.admit, project_id, export_id, traceparent)
        except BaseException:
            self.slots.give_back()
            raise
        if isinstance(answer, Claim):
            self.slots.start(answer)
        else:
            self.slots.give_back()
        return answer

    async def _bury(self, message: Received, verdict: Verdict, reason: str) -> None:
        logger.warning("dead letter: %s", reason, extra={"verdict": str(verdict), "offset": message.offset})
        publish = partial(bury, self.publisher, self.dead_letter_topic, message)
        now = self.admission.now()
        await self._insist(lambda: in_thread(publish, verdict=verdict, reason=reason, now=now))
        self.metrics.requests.labels(verdict).inc()
        self.metrics.dead_letters.labels(verdict).inc()

    async def _insist(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do it until it succeeds, for as long as dependencies are away; what looks like a bug is tried a few times."""
        pause, bugs = FIRST_PAUSE, 0
        while not self.closed.is_set():
            try:
                return await work()
            except Closed:
                raise
            except Unavailable as error:
                logger.warning("an event waits: %s", error)
            except Exception:
                bugs += 1
                logger.exception("an event could not be answered")
                if bugs == BUG_TRIES:
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        raise Closed

    def _note(self, project_id: str, export_id: str, answer: Claim | Refusal) -> None:
        verdict = verdict_on(answer)
        self.metrics.requests.labels(verdict).inc()
        if isinstance(answer, Refusal):
            level = logging.INFO if answer.reaction is Reaction.SKIP else logging.WARNING
            ids = {"project_id": project_id, "export_id": export_id}
            logger.log(level, "not started: %s", answer.reason, extra=ids | {"verdict": str(verdict)})
