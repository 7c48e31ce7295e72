"""Listens for completions on Kafka, makes each a row before it is acknowledged, and sends what is due."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import faust
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from config import errors
from config.events import Malformed, read_finished
from config.labels import NoticeOutcome
from config.metrics import Metrics
from config.settings import Settings
from config.tables import notices
from notify import catch_up as missed
from notify.deliver import Desk, attempt, settle
from notify.notices import Notice
from runtime.daemon import every, stop_on_signals, supervise, until
from runtime.http import Health, serve
from runtime.kafka import build_app, check_topics, message_headers, raw_topic
from runtime.self_metrics import follow_loop, follow_pool
from runtime.threads import in_thread, start_in_thread
from runtime.tracing import read_traceparent

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_PORT = 6067
AT_ONCE = 4
AGAIN_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""How long a mail that the server has already may take to be answered when the process ends."""

LONGEST_SECONDS = 1800.0
"""More than the slowest mail server can keep one mail without being cut off."""


async def run(settings: Settings, desk: Desk, metrics: Metrics) -> None:
    """Run the notifier until SIGTERM or SIGINT; mails that are on their way get `WAYBILL_DRAIN_SECONDS` to end."""
    stop = stop_on_signals()
    health = Health(
        {
            "database": lambda: _check_database(desk.engine),
            "kafka": lambda: check_topics(settings, settings.completions_topic),
        }
    )
    notifier = Notifier(settings, desk, metrics, health, stop)
    port = DEFAULT_PORT if settings.http_port is None else settings.http_port
    with TemporaryDirectory(prefix="waybill-notify-") as folder:
        async with serve(settings.http_host, port, registry=metrics.registry, health=health):
            loops = asyncio.gather(
                notifier.send(),
                every(settings.sweep_seconds, notifier.look_for_missed, name="missed", health=health, stop=stop),
                every(settings.sweep_seconds, notifier.measure, name="gauges", health=health, stop=stop),
                follow_loop(metrics, stop),
            )
            build = partial(_listen, settings, notifier, Path(folder))
            await supervise(build, health=health, metrics=metrics, stop=stop)
            try:
                await asyncio.wait_for(asyncio.shield(loops), settings.drain_seconds)
            except TimeoutError:
                await notifier.hand_over()
                with suppress(TimeoutError):
                    await asyncio.wait_for(loops, GRACE_SECONDS)


def _listen(settings: Settings, notifier: "Notifier", datadir: Path) -> faust.App:
    app = build_app(settings, group=settings.notify_group, datadir=datadir)

    @app.agent(raw_topic(app, settings.completions_topic), name="completions")
    async def completions(stream: Any) -> None:
        # Faust acknowledges what an agent that is stopped has in hand: only a durable row is reason enough.
        async for event in stream.noack().events():
            await notifier.record(event.value, read_traceparent(message_headers(event.message)))
            event.ack()

    return app


class Notifier:
    """Turns completions into notices, and notices into mails; every method but `send` does one thing once."""

    def __init__(self, settings: Settings, desk: Desk, metrics: Metrics, health: Health, stop: asyncio.Event) -> None:
        self._desk = desk
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._rung = asyncio.Event()
        self._on_their_way: dict[str, Notice] = {}
        self._topic = settings.completions_topic
        self._heartbeat = settings.heartbeat_seconds
        self._sweep = settings.sweep_seconds
        self._seen_until = _now() - missed.LOOK_BACK
        for outcome in NoticeOutcome:
            metrics.notices.labels(outcome)
        follow_pool(metrics, desk.engine)

    async def record(self, value: bytes | None, traceparent: str | None = None) -> None:
        """Make one message a notice; returns when that is durable, or when the message is none or one seen before."""
        try:
            event = read_finished(value)
        except Malformed as error:
            logger.warning(
                "a completion is malformed and skipped: %s", error, extra={"outcome": NoticeOutcome.MALFORMED}
            )
            self._count(NoticeOutcome.MALFORMED)
            return
        if await _insist(self._desk.notices.record, event, _now(), traceparent):
            self._rung.set()
        else:
            self._count(NoticeOutcome.DUPLICATE)

    async def look_for_missed(self) -> None:
        """Make notices of what was published and never came."""
        desk, now = self._desk, _now()
        for each in await asyncio.to_thread(
            lambda: list(missed.published(desk.engine, self._topic, since=self._seen_until, now=now))
        ):
            if await asyncio.to_thread(desk.notices.record, each.event, now, each.traceparent):
                logger.warning("a completion never came over Kafka", extra={"event_id": each.event.event_id})
                self._rung.set()
            self._seen_until = each.published_at

    async def measure(self) -> None:
        """Set the gauges of what waits to be sent."""
        count, oldest = await asyncio.to_thread(self._desk.notices.waiting)
        self._metrics.notices_waiting.set(count)
        self._metrics.oldest_notice.set(0 if oldest is None else max((_now() - oldest).total_seconds(), 0))

    async def send(self) -> None:
        """Send what is due until told to stop: when a completion comes, when a retry is due, and now and then."""
        while not self._stop.is_set():
            self._rung.clear()
            pause = self._sweep
            try:
                await self.send_due()
                pause = await self._until_next()
            except (SQLAlchemyError, errors.Unavailable) as error:
                logger.warning("the notices can't be read: %s", type(error).__name__)
            await self._wait(pause)

    async def send_due(self) -> None:
        """Send all that is due now, a few at once."""
        while not self._stop.is_set():
            self._health.beat("send", within=self._sweep + LONGEST_SECONDS)
            due = await asyncio.to_thread(self._desk.notices.due, _now(), limit=AT_ONCE)
            if not due:
                return
            await asyncio.gather(*(self._send(notice) for notice in due))

    async def _send(self, notice: Notice) -> None:
        store = self._desk.notices
        claimed = await asyncio.to_thread(store.claim, notice, _now())
        if claimed is None:
            if await asyncio.to_thread(store.abandon, notice, _now()):
                self._count(NoticeOutcome.FAILED)
            return
        self._on_their_way[claimed.event_id] = claimed
        trying = start_in_thread(attempt, self._desk, claimed, _now())
        while not (await asyncio.wait({trying}, timeout=self._heartbeat))[0]:
            await self._beat(claimed)
        del self._on_their_way[claimed.event_id]
        # A mail that is out and not recorded would be sent again: only the end of the process may stop this.
        outcome = await _insist(settle, store, claimed, trying.result(), _now())
        if outcome is not None:
            self._count(outcome)

    async def hand_over(self) -> None:
        """Give up the mails that are on their way: what the server has not been given yet is sent by another."""
        for notice in list(self._on_their_way.values()):
            logger.warning("a mail on its way is left to another notifier", extra={"event_id": notice.event_id})
            try:
                await in_thread(self._desk.notices.postpone, notice, "the notifier had to end", _now())
            except (SQLAlchemyError, errors.Unavailable) as error:
                logger.warning("a mail waits for its lease to end: %s", type(error).__name__)

    async def _beat(self, notice: Notice) -> None:
        try:
            await asyncio.to_thread(self._desk.notices.beat, notice, _now())
        except (SQLAlchemyError, errors.Unavailable) as error:
            logger.warning("the lease of a notice can't be extended: %s", type(error).__name__)

    async def _until_next(self) -> float:
        due = await asyncio.to_thread(self._desk.notices.next_due)
        if due is None:
            return self._sweep
        return min(self._sweep, max(0.05, (due - _now()).total_seconds()))

    async def _wait(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._rung.wait()), asyncio.ensure_future(until(self._stop, seconds))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _count(self, outcome: NoticeOutcome) -> None:
        self._metrics.notices.labels(outcome).inc()


async def _insist(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do database work in a thread, again and again until the database takes it."""
    while True:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except (SQLAlchemyError, errors.Unavailable) as error:
            logger.warning("the database does not take a notice, trying again: %s", type(error).__name__)
        await asyncio.sleep(AGAIN_SECONDS)


def _check_database(engine: Engine) -> None:
    if not inspect(engine).has_table(notices.name):
        raise ConnectionError(f"table {notices.name} is missing: run `waybill migrate`")


def _now() -> datetime:
    return datetime.now(UTC)
