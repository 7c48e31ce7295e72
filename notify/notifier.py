"""Records completions as notices, and sends the notices that are due."""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import datetime
from functools import partial

from config.errors import Unavailable
from config.labels import Channel, NoticeChannel, NoticeOutcome
from config.metrics import Metrics
from config.settings import Settings
from notify.catch_up import LOOK_BACK, find_published
from notify.deliver import Attempt, NotifierContext, attempt, settle
from notify.intake import Intake, retry
from notify.notice import Notice
from notify.open_channels import list_channels
from runtime.clock import DatabaseClock
from runtime.http import Health
from runtime.publisher import Publisher
from runtime.self_metrics import follow_pool
from runtime.supervise import wait_for_stop
from runtime.threads import in_thread, start_in_thread

logger = logging.getLogger(__name__)

NoticeKey = tuple[str, Channel]

CONCURRENT_SENDS = 4
"""How many messages of one channel are sent at the same time; those of another channel don't wait for them."""

LONGEST_SEND_SECONDS = 1800.0
"""Longer than the slowest mail server can take for one email before a timeout ends the connection."""

PRUNE_BATCH = 1_000
ASIDE_SECONDS = 60.0
"""How long a notice is left alone after a bug, so that it does not block the others."""


class Notifier:
    """Turns completions into notices, and notices into messages; `send` is a loop, the other methods run once."""

    def __init__(
        self,
        settings: Settings,
        context: NotifierContext,
        metrics: Metrics,
        health: Health,
        stop: asyncio.Event,
        publisher: Publisher,
    ) -> None:
        self.clock = DatabaseClock(context.engine)
        self._now = self.clock.now
        self._context = context
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._wake = asyncio.Event()
        self._sending: dict[NoticeKey, Notice] = {}
        self._running: dict[NoticeKey, tuple[float, asyncio.Task[None]]] = {}
        self._aside: dict[NoticeKey, float] = {}
        self._topic = settings.completions_topic
        self.intake = Intake(
            engine=context.engine,
            notices=context.notices,
            publisher=publisher,
            dead_letter_topic=settings.dead_letter_topic,
            metrics=metrics,
            now=self._now,
            on_new=self._wake.set,
        )
        self._heartbeat = settings.heartbeat_seconds
        self._sweep = settings.sweep_seconds
        self._history = settings.history
        self._seen_until: datetime | None = None
        self._channels = list_channels(settings)
        for channel in self._channels:
            for outcome in NoticeOutcome:
                metrics.notices.labels(channel, outcome)
        metrics.unreadable_records.labels(self._topic)
        follow_pool(metrics, context.engine)

    async def catch_up(self) -> None:
        """Record completions that were published but never delivered; one that can't be recorded is skipped."""
        engine, now = self._context.engine, self._now()
        since = self._seen_until or now - LOOK_BACK
        for each in await in_thread(lambda: list(find_published(engine, self._topic, since=since, now=now))):
            try:
                if await self.intake.record(each.payload, each.traceparent):
                    logger.warning("Kafka did not deliver a completion", extra={"outbox_id": each.outbox_id})
            except Exception:
                logger.exception("a completion can't be recorded", extra={"outbox_id": each.outbox_id})
                self._count("all", NoticeOutcome.BUG)
            self._seen_until = each.published_at

    async def measure(self) -> None:
        """Set the gauges of the open notices, and compare the clock with the database's."""
        await in_thread(self.clock.compare)
        opened = await in_thread(self._context.notices.count_open)
        for channel in {*self._channels, *opened}:
            count, oldest = opened.get(channel, (0, None))
            age = 0 if oldest is None else max((self._now() - oldest).total_seconds(), 0)
            self._metrics.notices_waiting.labels(channel).set(count)
            self._metrics.oldest_notice.labels(channel).set(age)

    async def prune(self) -> None:
        """Delete notices that ended long ago, in batches."""
        before = self._now() - self._history
        while await in_thread(self._context.notices.prune, before, limit=PRUNE_BATCH):
            pass

    async def send(self) -> None:
        """Send due notices until stopped; new completions, due retries, ended attempts and a timer start a round."""
        while not self._stop.is_set():
            self._wake.clear()
            pause = self._sweep
            try:
                await self.start_due()
                pause = await self._until_next()
            except Unavailable as error:
                logger.warning("can't read the notices: %s", error)
            except Exception:
                logger.exception("can't read the notices because of a bug")
            await self._wait(pause)
        await self.finish()

    async def start_due(self) -> None:
        """Start to send notices that are due, a few of each channel; a slow response to one delays no other.

        A notifier that is ending starts none: it would take back what it has just released.
        """
        oldest = min((started for started, _ in self._running.values()), default=time.monotonic())
        if time.monotonic() - oldest < LONGEST_SEND_SECONDS:
            self._health.beat("send", within=self._sweep + LONGEST_SEND_SECONDS)
        self._aside = {key: until for key, until in self._aside.items() if until > time.monotonic()}
        due = [notice for channel in Channel for notice in await self._find_due(channel)]
        for notice in due if not self._stop.is_set() else ():
            self._running[notice.key] = time.monotonic(), asyncio.create_task(self._handle(notice))

    async def finish(self) -> None:
        """Wait for the messages that are being sent."""
        await asyncio.gather(*(task for _, task in self._running.values()))

    async def _find_due(self, channel: Channel) -> list[Notice]:
        """Find notices of a channel to send now, without those that are being sent or left alone."""
        free = CONCURRENT_SENDS - len(_select(self._running, channel))
        if free <= 0:
            return []
        left_out = _select(self._aside, channel) | _select(self._running, channel)
        due = await in_thread(self._context.notices.find_due, self._now(), channel, limit=free + len(left_out))
        found = {notice.key: notice for notice in due if notice.key not in left_out}
        return list(found.values())[:free]

    async def _handle(self, notice: Notice) -> None:
        try:
            await self._send(notice)
        except Unavailable as error:
            logger.warning("a notice waits: %s", error, extra=_name(notice))
            self._aside[notice.key] = time.monotonic() + self._sweep
        except Exception:
            logger.exception("a notice could not be handled because of a bug", extra=_name(notice))
            self._count(notice.channel, NoticeOutcome.BUG)
            self._aside[notice.key] = time.monotonic() + ASIDE_SECONDS
        finally:
            del self._running[notice.key]
            self._wake.set()

    async def _send(self, notice: Notice) -> None:
        store = self._context.notices
        claimed = await in_thread(store.claim, notice, self._now())
        if claimed is None:
            await self._end_lost_attempt(notice)
            return
        self._sending[claimed.key] = claimed
        running = start_in_thread(attempt, self._context, claimed, self._now())
        while not (await asyncio.wait({running}, timeout=self._heartbeat))[0]:
            await self._extend_lease(claimed)
        del self._sending[claimed.key]
        outcome = await self._settle(claimed, running.result())
        if outcome is not None:
            self._count(notice.channel, outcome)

    async def _settle(self, notice: Notice, ended: Attempt) -> NoticeOutcome | None:
        """Record the result of an attempt; a message that was sent and not recorded would be sent again."""
        store = self._context.notices
        try:
            return await retry(partial(settle, store, notice, ended, self._now()), self._context.engine)
        except Exception:
            logger.exception("the result of an attempt can't be recorded", extra=_name(notice))
            reason = f"the last attempt was {ended.outcome}, which could not be recorded because of a bug"
            return NoticeOutcome.FAILED if await in_thread(store.fail, notice, reason) else None

    async def _end_lost_attempt(self, notice: Notice) -> None:
        """Handle a notice whose notifier stopped during its last attempt, or while the message was being sent."""
        store = self._context.notices
        if await in_thread(store.suspect, notice, self._now()):
            what, outcome = "a message may have been sent, and will be sent again", NoticeOutcome.UNANSWERED
        elif await in_thread(store.abandon, notice, self._now()):
            what, outcome = "the notifier crashed in the last attempt to send a message", NoticeOutcome.FAILED
        else:
            return
        logger.warning(what, extra=_name(notice) | {"outcome": outcome})
        self._count(notice.channel, outcome)

    async def release(self) -> None:
        """Release the notices being sent: another notifier sends the messages that no receiver has yet."""
        for notice in list(self._sending.values()):
            try:
                if await in_thread(self._context.notices.release, notice, "the notifier shut down", self._now()):
                    logger.warning("released a notice to another notifier", extra=_name(notice))
            except Exception:
                logger.exception("can't release a notice, its lease must end first")

    async def _extend_lease(self, notice: Notice) -> None:
        try:
            await in_thread(self._context.notices.extend_lease, notice, self._now())
        except Unavailable as error:
            logger.warning("can't extend the lease of a notice: %s", error)
        except Exception:
            logger.exception("can't extend the lease of a notice because of a bug")

    async def _until_next(self) -> float:
        due = await in_thread(self._context.notices.next_due)
        return min((self._until(channel, at) for channel, at in due.items()), default=self._sweep)

    def _until(self, channel: Channel, due: datetime) -> float:
        """Return the seconds until a channel's next notice; if that waits for one that runs, its end starts a round."""
        if due <= self._now() and (_select(self._aside, channel) or _select(self._running, channel)):
            return self._sweep
        return min(self._sweep, max(0.05, (due - self._now()).total_seconds()))

    async def _wait(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(wait_for_stop(self._stop, seconds))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _count(self, channel: NoticeChannel, outcome: NoticeOutcome) -> None:
        self._metrics.notices.labels(channel, outcome).inc()


def _select(keys: Iterable[NoticeKey], channel: Channel) -> set[NoticeKey]:
    return {key for key in keys if key[1] is channel}


def _name(notice: Notice) -> dict[str, str]:
    return {"event_id": notice.event_id, "export_id": notice.export_id, "channel": notice.channel}
