"""Consumes completions from Kafka, records each as a notice before it is acknowledged, and sends the due notices."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import faust
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from config.errors import Unavailable
from config.events import Malformed, read_finished
from config.labels import NoticeOutcome, Verdict
from config.metrics import Metrics
from config.settings import Settings
from config.tables import notices
from notify.catch_up import LOOK_BACK, find_published
from notify.deliver import NotifierContext, attempt, settle
from notify.notices import Notice
from runtime.clock import DatabaseClock
from runtime.dead_letters import ReceivedMessage, dead_letter, read_message
from runtime.http import Health, serve
from runtime.kafka import build_app, check_topics, raw_topic
from runtime.publisher import Publisher
from runtime.retry import Backoff
from runtime.self_metrics import follow_loop, follow_pool
from runtime.supervise import run_every, stop_on_signals, supervise, wait_for_stop
from runtime.threads import in_thread, start_in_thread
from runtime.tracing import read_traceparent

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_PORT = 6067
CONCURRENT_SENDS = 4
DATABASE_RETRIES = Backoff(1, longest=10)
GRACE_SECONDS = 5.0
"""How long the mail server may take at shutdown to respond to an email that it has already received."""

LONGEST_SEND_SECONDS = 1800.0
"""Longer than the slowest mail server can take for one email before a timeout ends the connection."""

DATABASE_ERRORS = (Unavailable, SQLAlchemyError)
"""An outage, and an error in a statement: a bug, which must not stop the notifier either."""


async def run(settings: Settings, context: NotifierContext, metrics: Metrics, publisher: Publisher) -> None:
    """Run the notifier until SIGTERM or SIGINT; emails being sent then get `WAYBILL_DRAIN_SECONDS` to finish."""
    stop = stop_on_signals()
    health = Health(
        {
            "database": lambda: _check_database(context.engine),
            "kafka": lambda: check_topics(settings, settings.completions_topic),
        }
    )
    notifier = Notifier(settings, context, metrics, health, stop, publisher)
    port = DEFAULT_PORT if settings.http_port is None else settings.http_port
    with TemporaryDirectory(prefix="waybill-notify-") as folder:
        async with serve(settings.http_host, port, registry=metrics.registry, health=health):
            if not await notifier.clock.start(stop):
                return
            loops = asyncio.gather(
                notifier.send(),
                run_every(settings.sweep_seconds, notifier.catch_up, name="missed", health=health, stop=stop),
                run_every(settings.sweep_seconds, notifier.measure, name="gauges", health=health, stop=stop),
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
            message = read_message(event)
            if message.unreadable is None:
                await notifier.record(message.value, read_traceparent(message.headers))
            else:
                await notifier.dead_letter(message, message.unreadable.reason)
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
        self._publisher = publisher
        self._topic = settings.completions_topic
        self._dead_letter_topic = settings.dead_letter_topic
        self._heartbeat = settings.heartbeat_seconds
        self._sweep = settings.sweep_seconds
        self._seen_until: datetime | None = None
        for outcome in NoticeOutcome:
            metrics.notices.labels(outcome)
        metrics.unreadable_records.labels(self._topic)
        follow_pool(metrics, context.engine)

    async def record(self, value: bytes | None, traceparent: str | None = None) -> None:
        """Record one message as a notice and return once that is durable; skip duplicates and malformed messages."""
        try:
            event = read_finished(value)
        except Malformed as error:
            logger.warning("skipped a malformed completion: %s", error, extra={"outcome": NoticeOutcome.MALFORMED})
            self._count(NoticeOutcome.MALFORMED)
            return
        if await _retry_until_available(self._context.notices.record, event, self._now(), traceparent):
            self._wake.set()
        else:
            self._count(NoticeOutcome.DUPLICATE)

    async def dead_letter(self, message: ReceivedMessage, reason: str) -> None:
        """Publish an unreadable message to the dead-letter topic, and return once Kafka has confirmed it."""
        logger.warning("dead letter: %s", reason, extra={"offset": message.offset})
        publish = partial(dead_letter, self._publisher, self._dead_letter_topic, message)
        await _retry_until_available(publish, verdict=Verdict.UNREADABLE, reason=reason, now=self._now())
        self._metrics.unreadable_records.labels(message.topic).inc()
        self._count(NoticeOutcome.UNREADABLE)

    async def catch_up(self) -> None:
        """Record completions that were published but never delivered."""
        engine, now = self._context.engine, self._now()
        since = self._seen_until or now - LOOK_BACK
        for each in await in_thread(lambda: list(find_published(engine, self._topic, since=since, now=now))):
            if await in_thread(self._context.notices.record, each.event, now, each.traceparent):
                logger.warning("Kafka did not deliver a completion", extra={"event_id": each.event.event_id})
                self._wake.set()
            self._seen_until = each.published_at

    async def measure(self) -> None:
        """Set the gauges of the open notices, and compare the clock with the database's."""
        await in_thread(self.clock.compare)
        count, oldest = await in_thread(self._context.notices.count_open)
        self._metrics.notices_waiting.set(count)
        self._metrics.oldest_notice.set(0 if oldest is None else max((self._now() - oldest).total_seconds(), 0))

    async def send(self) -> None:
        """Send due notices until stopped; new completions, due retries and a timer start the next round."""
        while not self._stop.is_set():
            self._wake.clear()
            pause = self._sweep
            try:
                await self.send_due()
                pause = await self._until_next()
            except DATABASE_ERRORS as error:
                _log_database_error("can't read the notices", error)
            await self._wait(pause)

    async def send_due(self) -> None:
        """Send all notices that are due now, a few at a time."""
        while not self._stop.is_set():
            self._health.beat("send", within=self._sweep + LONGEST_SEND_SECONDS)
            due = await in_thread(self._context.notices.find_due, self._now(), limit=CONCURRENT_SENDS)
            if not due:
                return
            await asyncio.gather(*(self._send(notice) for notice in due))

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
        # An email that was sent and not recorded would be sent again: only the end of the process may stop this.
        outcome = await _retry_until_available(settle, store, claimed, running.result(), self._now())
        if outcome is not None:
            self._count(outcome)

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
            except DATABASE_ERRORS as error:
                _log_database_error("can't release a notice, its lease must end first", error)

    async def _extend_lease(self, notice: Notice) -> None:
        try:
            await in_thread(self._context.notices.extend_lease, notice, self._now())
        except DATABASE_ERRORS as error:
            _log_database_error("can't extend the lease of a notice", error)

    async def _until_next(self) -> float:
        due = await in_thread(self._context.notices.next_due)
        if due is None:
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


async def _retry_until_available(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do work in a thread, and retry it until the database or Kafka has confirmed it."""
    delays = DATABASE_RETRIES.delays()
    while True:
        try:
            return await in_thread(work, *args, **kwargs)
        except DATABASE_ERRORS as error:
            _log_database_error("can't record a completion event, retrying", error)
        await asyncio.sleep(next(delays))


def _log_database_error(what: str, error: Exception) -> None:
    """Log a failure that is retried, with its traceback if it is a bug and not an outage."""
    if isinstance(error, Unavailable):
        logger.warning("%s: %s", what, error)
    else:
        logger.error("%s because of a bug", what, exc_info=error)


def _check_database(engine: Engine) -> None:
    if not inspect(engine).has_table(notices.name):
        raise ConnectionError(f"table {notices.name} is missing: run `waybill migrate`")
