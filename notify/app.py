"""Consumes completions from Kafka, records each as a notice before it is acknowledged, and sends the due notices."""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faust

from config.errors import Unavailable
from config.labels import NoticeOutcome
from config.metrics import Metrics
from config.settings import Settings
from notify.catch_up import LOOK_BACK, find_published
from notify.deliver import Attempt, NotifierContext, attempt, settle
from notify.intake import Intake, check_tables, retry
from notify.notices import Notice
from runtime.clock import DatabaseClock
from runtime.connections import limits_of, raise_descriptor_limit
from runtime.dead_letters import read_message
from runtime.http import Health, health_routes, serve
from runtime.kafka import build_app, raw_topic
from runtime.kafka_admin import check_topics
from runtime.publisher import Publisher
from runtime.self_metrics import follow_loop, follow_pool
from runtime.supervise import run_every, stop_on_signals, supervise, wait_for_stop
from runtime.threads import in_thread, start_in_thread

logger = logging.getLogger(__name__)

CONCURRENT_SENDS = 4
GRACE_SECONDS = 5.0
"""How long the mail server may take at shutdown to respond to an email that it has already received."""

LONGEST_SEND_SECONDS = 1800.0
"""Longer than the slowest mail server can take for one email before a timeout ends the connection."""

PRUNE_SECONDS = 300.0
PRUNE_BATCH = 1_000
ASIDE_SECONDS = 60.0
"""How long a notice is left alone after a bug, so that it does not block the others."""


async def run(settings: Settings, context: NotifierContext, metrics: Metrics, publisher: Publisher) -> None:
    """Run the notifier until SIGTERM or SIGINT; emails being sent then get `WAYBILL_DRAIN_SECONDS` to finish."""
    stop = stop_on_signals()
    health = Health(
        {
            "database": lambda: check_tables(context.engine),
            "kafka": lambda: check_topics(settings, settings.completions_topic),
        }
    )
    notifier = Notifier(settings, context, metrics, health, stop, publisher)
    routes, limits = health_routes(metrics.registry, health), limits_of("internal", raise_descriptor_limit())
    port = settings.notify_port
    with TemporaryDirectory(prefix="waybill-notify-") as folder:
        async with serve(settings.http_host, port, routes, name="internal", limits=limits, metrics=metrics):
            if not await notifier.clock.start(stop):
                return
            loops = asyncio.gather(
                notifier.send(),
                run_every(settings.sweep_seconds, notifier.catch_up, name="missed", health=health, stop=stop),
                run_every(settings.sweep_seconds, notifier.measure, name="gauges", health=health, stop=stop),
                run_every(PRUNE_SECONDS, notifier.prune, name="prune", health=health, stop=stop),
                follow_loop(metrics, stop),
            )
            build = partial(_build_app, settings, notifier, Path(folder))
            await supervise(build, health=health, metrics=metrics, stop=stop)
            try:
                await asyncio.wait_for(asyncio.shield(loops), settings.drain_seconds)
            except TimeoutError:
                await notifier.release()
                with suppress(TimeoutError):
                    await asyncio.wait_for(loops, GRACE_SECONDS)


def _build_app(settings: Settings, notifier: "Notifier", datadir: Path) -> faust.App:
    app = build_app(settings, group=settings.notify_group, datadir=datadir)

    @app.agent(raw_topic(app, settings.completions_topic), name="completions")
    async def completions(stream: Any) -> None:
        # Faust would acknowledge the event of a cancelled agent, but the event must stay until its row exists.
        async for event in stream.noack().events():
            await notifier.intake.handle(read_message(event))
            event.ack()

    return app


class Notifier:
    """Turns completions into notices, and notices into emails; `send` is a loop, the other methods run once."""

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
        self._sending: dict[str, Notice] = {}
        self._running: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self._aside: dict[str, float] = {}
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
        for outcome in NoticeOutcome:
            metrics.notices.labels(outcome)
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
                self._count(NoticeOutcome.BUG)
            self._seen_until = each.published_at

    async def measure(self) -> None:
        """Set the gauges of the open notices, and compare the clock with the database's."""
        await in_thread(self.clock.compare)
        count, oldest = await in_thread(self._context.notices.count_open)
        self._metrics.notices_waiting.set(count)
        self._metrics.oldest_notice.set(0 if oldest is None else max((self._now() - oldest).total_seconds(), 0))

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
        """Start to send notices that are due, a few at a time; a slow response to one email delays no other.

        A notifier that is ending starts none: it would take back what it has just released.
        """
        oldest = min((started for started, _ in self._running.values()), default=time.monotonic())
        if time.monotonic() - oldest < LONGEST_SEND_SECONDS:
            self._health.beat("send", within=self._sweep + LONGEST_SEND_SECONDS)
        if len(self._running) < CONCURRENT_SENDS:
            due = await self._find_due()
            for notice in due if not self._stop.is_set() else ():
                self._running[notice.event_id] = time.monotonic(), asyncio.create_task(self._handle(notice))

    async def finish(self) -> None:
        """Wait for the emails that are being sent."""
        await asyncio.gather(*(task for _, task in self._running.values()))

    async def _find_due(self) -> list[Notice]:
        """Find notices to send now, without those that are being sent or left alone."""
        self._aside = {event_id: until for event_id, until in self._aside.items() if until > time.monotonic()}
        left_out = self._aside.keys() | self._running.keys()
        due = await in_thread(self._context.notices.find_due, self._now(), limit=CONCURRENT_SENDS + len(left_out))
        found = {notice.event_id: notice for notice in due if notice.event_id not in left_out}
        return list(found.values())[: CONCURRENT_SENDS - len(self._running)]

    async def _handle(self, notice: Notice) -> None:
        try:
            await self._send(notice)
        except Unavailable as error:
            logger.warning("a notice waits: %s", error, extra={"event_id": notice.event_id})
            self._aside[notice.event_id] = time.monotonic() + self._sweep
        except Exception:
            logger.exception("a notice could not be handled because of a bug", extra={"event_id": notice.event_id})
            self._count(NoticeOutcome.BUG)
            self._aside[notice.event_id] = time.monotonic() + ASIDE_SECONDS
        finally:
            del self._running[notice.event_id]
            self._wake.set()

    async def _send(self, notice: Notice) -> None:
        store = self._context.notices
        claimed = await in_thread(store.claim, notice, self._now())
        if claimed is None:
            await self._end_lost_attempt(notice)
            return
        self._sending[claimed.event_id] = claimed
        running = start_in_thread(attempt, self._context, claimed, self._now())
        while not (await asyncio.wait({running}, timeout=self._heartbeat))[0]:
            await self._extend_lease(claimed)
        del self._sending[claimed.event_id]
        outcome = await self._settle(claimed, running.result())
        if outcome is not None:
            self._count(outcome)

    async def _settle(self, notice: Notice, ended: Attempt) -> NoticeOutcome | None:
        """Record the result of an attempt; an email that was sent and not recorded would be sent again."""
        store = self._context.notices
        try:
            return await retry(partial(settle, store, notice, ended, self._now()), self._context.engine)
        except Exception:
            logger.exception("the result of an attempt can't be recorded", extra={"event_id": notice.event_id})
            reason = f"the last attempt was {ended.outcome}, which could not be recorded because of a bug"
            return NoticeOutcome.FAILED if await in_thread(store.fail, notice, reason) else None

    async def _end_lost_attempt(self, notice: Notice) -> None:
        """Handle a notice whose notifier stopped during its last attempt, or while the email was being sent."""
        store, extra = self._context.notices, {"event_id": notice.event_id, "export_id": notice.export_id}
        if await in_thread(store.suspect, notice, self._now()):
            what, outcome = "an email may have been sent, and will be sent again", NoticeOutcome.UNANSWERED
        elif await in_thread(store.abandon, notice, self._now()):
            what, outcome = "the notifier crashed in the last attempt to send an email", NoticeOutcome.FAILED
        else:
            return
        logger.warning(what, extra=extra | {"outcome": outcome})
        self._count(outcome)

    async def release(self) -> None:
        """Release the notices being sent: another notifier sends the emails that the server has not received yet."""
        for notice in list(self._sending.values()):
            try:
                if await in_thread(self._context.notices.release, notice, "the notifier shut down", self._now()):
                    logger.warning("released a notice to another notifier", extra={"event_id": notice.event_id})
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
        if due is None or ((self._aside or self._running) and due <= self._now()):
            return self._sweep
        return min(self._sweep, max(0.05, (due - self._now()).total_seconds()))

    async def _wait(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(wait_for_stop(self._stop, seconds))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _count(self, outcome: NoticeOutcome) -> None:
        self._metrics.notices.labels(outcome).inc()
