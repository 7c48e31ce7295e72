"""Handles request events from Kafka, and starts exports that the sweeper finds; each ends as a claim or a refusal."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from config.errors import Unavailable
from config.events import ExportRequested, Malformed, read_request
from config.labels import Verdict
from config.metrics import Metrics
from consumer.claim import Claimer
from consumer.guards import Reaction, Refusal
from consumer.models import Claim, ExportKey
from consumer.slots import Slots
from runtime.dead_letters import ReceivedMessage, dead_letter
from runtime.publisher import Publisher
from runtime.retry import Backoff
from runtime.supervise import wait_for_stop
from runtime.threads import in_thread
from runtime.tracing import read_traceparent

logger = logging.getLogger(__name__)

R = TypeVar("R")
Later = Callable[[], Coroutine[None, None, None]]

LOOK_AGAIN_SECONDS = (0.25, 0.5, 1.0)
"""Delays between looks for a row that may not be committed yet."""

BACKOFF = Backoff(first=0.5, longest=15.0)
BUG_TRIES = 5


class Closed(Exception):
    """The worker is shutting down; the request is left to another."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Claims exports for free slots; starts nothing while `closed` or `outbox_full` is set."""

    claimer: Claimer
    slots: Slots
    publisher: Publisher
    dead_letter_topic: str
    metrics: Metrics
    closed: asyncio.Event
    outbox_full: asyncio.Event = field(default_factory=asyncio.Event)
    _claiming: set[asyncio.Task[Claim | Refusal]] = field(default_factory=set)

    async def handle(self, message: ReceivedMessage) -> None:
        """Handle one request event; on return, the claim, the refusal or the dead letter is durable.

        Waits for a slot, and while the database or Kafka is unavailable. Raises Closed; do not acknowledge the event
        then.
        """
        if (look_again := await self.begin(message)) is not None:
            await look_again()

    async def begin(self, message: ReceivedMessage) -> Later | None:
        """Handle one request event like `handle`, but don't wait for a row that may not be committed yet.

        Returns the rest of the work in that case. It may run beside other events; acknowledge the event when it ends.
        """
        if message.unreadable is not None:
            await self._dead_letter(message, Verdict.UNREADABLE, message.unreadable.reason)
            self.metrics.unreadable_records.labels(message.topic).inc()
            return None
        try:
            request = read_request(message.value)
        except Malformed as error:
            await self._dead_letter(message, Verdict.MALFORMED, str(error))
            return None
        if await self._try(message, request, last=False):
            return None
        return partial(self._look_again, message, request)

    async def _look_again(self, message: ReceivedMessage, request: ExportRequested) -> None:
        for seconds in LOOK_AGAIN_SECONDS[:-1]:
            await asyncio.sleep(seconds)
            if await self._try(message, request, last=False):
                return
        await asyncio.sleep(LOOK_AGAIN_SECONDS[-1])
        await self._try(message, request, last=True)

    async def _try(self, message: ReceivedMessage, request: ExportRequested, *, last: bool) -> bool:
        """Start the export or refuse it; return False if its row is missing, unless this is the `last` look."""
        key = ExportKey(project_id=request.project_id, export_id=request.batch_export_id)
        start = partial(self._start, key, read_traceparent(message.headers))
        try:
            decision = await self._retry_until_available(start)
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 (it was logged; one event must not block all others)
            await self._dead_letter(message, Verdict.BUG, f"an unexpected error occurred: {type(error).__name__}")
            return True
        if isinstance(decision, Refusal) and decision.reaction is Reaction.LOOK_AGAIN and not last:
            return False
        if isinstance(decision, Refusal) and decision.reaction in {Reaction.DEAD_LETTER, Reaction.LOOK_AGAIN}:
            await self._dead_letter(message, decision.verdict, decision.reason)
        else:
            self._record(key, decision)
        return True

    async def start_without_event(self, key: ExportKey) -> None:
        """Start an export that the sweeper found, or refuse it; raises Closed and Unavailable."""
        self._record(key, await self._start(key, None))

    async def finish_claims(self, seconds: float) -> None:
        """Wait up to `seconds` until the claims that have begun run in their slots."""
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=seconds)

    async def _start(self, key: ExportKey, traceparent: str | None) -> Claim | Refusal:
        """Wait for a slot, claim the export and run it there; or refuse it, without a slot where that is possible."""
        if not self.slots.free:
            # A request that would be refused must not wait for a slot, perhaps for hours.
            refusal = await in_thread(self.claimer.check, key)
            if refusal is not None and refusal.reaction is not Reaction.FAIL:
                return refusal
        if self.outbox_full.is_set():
            raise Unavailable("too many events wait for Kafka: no export is claimed")
        await self.slots.take()
        if self.closed.is_set():
            self.slots.give_back()
            raise Closed
        # Faust may cancel its agent at any time; a claim that has begun must still be run in its slot.
        claiming = asyncio.create_task(self._claim(key, traceparent))
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        return await asyncio.shield(claiming)

    async def _claim(self, key: ExportKey, traceparent: str | None) -> Claim | Refusal:
        try:
            decision = await in_thread(self.claimer.claim, key, traceparent)
        except BaseException:
            self.slots.give_back()
            raise
        if isinstance(decision, Claim):
            self.slots.start(decision)
        else:
            self.slots.give_back()
        return decision

    async def _dead_letter(self, message: ReceivedMessage, verdict: Verdict, reason: str) -> None:
        logger.warning(
            "a request became a dead letter: %s", reason, extra={"verdict": str(verdict), "offset": message.offset}
        )
        publish = partial(dead_letter, self.publisher, self.dead_letter_topic, message)
        now = self.claimer.now()
        await self._retry_until_available(lambda: in_thread(publish, verdict=verdict, reason=reason, now=now))
        self.metrics.requests.labels(verdict).inc()
        self.metrics.dead_letters.labels(verdict).inc()

    async def _retry_until_available(self, work: Callable[[], Awaitable[R]]) -> R:
        """Call `work` until it succeeds: without end while it raises Unavailable, BUG_TRIES times for other errors."""
        delays, bugs = BACKOFF.delays(), 0
        while not self.closed.is_set():
            try:
                return await work()
            except Closed:
                raise
            except Unavailable as error:
                logger.warning("a request is waiting and will be retried: %s", error)
            except Exception:
                bugs += 1
                logger.exception("handling a request failed")
                if bugs == BUG_TRIES:
                    raise
            await wait_for_stop(self.closed, next(delays))
        raise Closed

    def _record(self, key: ExportKey, decision: Claim | Refusal) -> None:
        if isinstance(decision, Claim):
            self.metrics.requests.labels(Verdict.RESUMED if decision.resumed else Verdict.ACCEPTED).inc()
            return
        self.metrics.requests.labels(decision.verdict).inc()
        level = logging.INFO if decision.reaction is Reaction.SKIP else logging.WARNING
        context = key.log_context() | {"verdict": str(decision.verdict)}
        logger.log(level, "the export was not started: %s", decision.reason, extra=context)
