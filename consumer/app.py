"""Listens for export requests on Kafka and runs them in slots, until it is told to stop."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faust
from aiohttp import web

from config.errors import Unavailable
from config.events import ExportRequested
from config.metrics import Metrics
from config.settings import Settings
from consumer import outbox
from consumer.attempt import Bench, Export, Rules, run_claim
from consumer.claim import Admission
from consumer.cleanup import Upkeep
from consumer.clock import DatabaseClock
from consumer.dead_letters import received
from consumer.gauges import measure
from consumer.guards import Policy
from consumer.intake import Closed, Reception
from consumer.jobs import Jobs
from consumer.labels import start_at_zero
from consumer.models import Claim, Hold
from consumer.relay import relay
from consumer.slots import Rhythm, Slots
from consumer.sweeper import Sweeper
from pipeline.read.connections import Sources
from pipeline.storage import Storage
from pipeline.types import Progress
from runtime.daemon import every, stop_on_signals, supervise, until, wait_for_dependencies
from runtime.http import Check, Health, serve
from runtime.kafka import build_app, raw_topic
from runtime.publisher import Outgoing, Publisher
from runtime.self_metrics import follow_loop, follow_pool
from runtime.threads import in_thread
from runtime.tracing import Tracer

logger = logging.getLogger(__name__)

DEFAULT_PORT = 6066
GRACE_SECONDS = 10.0
"""How long an export that is stopped may take to be put back in the queue."""

UPKEEP_SECONDS = 300.0
CLOCK_SECONDS = 1.0

UNSEEN_SWEEPS = 2
"""After so many sweeps a QUEUED row is taken up without its event."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the consumer is joined from; `checks` are its dependencies by name."""

    jobs: Jobs
    sources: Sources
    storage: Storage
    publisher: Publisher
    metrics: Metrics
    export: Export
    checks: Mapping[str, Check]
    routes: tuple[web.RouteDef, ...] = ()
    tracer: Tracer = field(default_factory=Tracer)


async def run(settings: Settings, parts: Parts) -> None:
    """Consume until SIGTERM or SIGINT, then end within `WAYBILL_DRAIN_SECONDS` and a little.

    On the signal nothing more is claimed and the group is left; running exports may finish, and what is left of them
    goes back to the queue, with an event for whoever is free.
    """
    stop = stop_on_signals()
    health = Health(parts.checks)
    worker = _Worker(settings, parts, stop)
    port = DEFAULT_PORT if settings.http_port is None else settings.http_port
    with TemporaryDirectory(prefix="waybill-consumer-", ignore_cleanup_errors=True) as folder:
        async with serve(settings.http_host, port, registry=parts.metrics.registry, health=health, routes=parts.routes):
            if not await wait_for_dependencies(health, stop):
                return
            if not await worker.set_clock():
                return
            ending = asyncio.create_task(worker.end())
            timers = asyncio.gather(
                worker.sweep(health),
                worker.relay(health),
                worker.tidy(health),
                worker.measure(health),
                follow_loop(parts.metrics, stop),
            )
            build = partial(_listen, settings, worker.reception, Path(folder))
            await supervise(build, health=health, metrics=parts.metrics, stop=stop)
            health.rest()
            await ending
            with suppress(TimeoutError):
                await asyncio.wait_for(timers, GRACE_SECONDS)


class _Worker:
    """The loops of one consumer process, joined: slots that run, a reception that fills them, a sweeper, a relay."""

    def __init__(self, settings: Settings, parts: Parts, stop: asyncio.Event) -> None:
        clock = DatabaseClock(parts.jobs.engine)
        policy = Policy(
            enabled=settings.enabled == "true",
            stale_after=timedelta(days=settings.stale_days),
            max_attempts=settings.max_attempts,
        )
        bench = Bench(
            jobs=parts.jobs,
            sources=parts.sources,
            storage=parts.storage,
            metrics=parts.metrics,
            rules=_rules(settings),
            export=parts.export,
            now=clock.now,
            tracer=parts.tracer,
        )
        admission = Admission(
            jobs=parts.jobs, policy=policy, worker=_worker_name(), metrics=parts.metrics, now=clock.now
        )
        self._slots = Slots(
            settings.slots,
            work=lambda claim, progress: run_claim(claim, bench, progress),
            beat=lambda claim, progress: _beat(bench, claim, progress),
            on_end=self._on_end,
            rhythm=Rhythm(
                heartbeat=settings.heartbeat_seconds, lease=settings.lease_seconds, stall=settings.stall_seconds
            ),
            metrics=parts.metrics,
        )
        self.reception = Reception(
            admission=admission,
            slots=self._slots,
            publisher=parts.publisher,
            dead_letter_topic=settings.dead_letter_topic,
            metrics=parts.metrics,
            closed=stop,
        )
        self._sweeper = Sweeper(
            bench=bench,
            reception=self.reception,
            clock=clock,
            policy=policy,
            project_slots=settings.project_slots,
            unseen_for=timedelta(seconds=UNSEEN_SWEEPS * settings.sweep_seconds),
        )
        self._upkeep = Upkeep(bench=bench, prefix=settings.prefix, delete_expired=settings.delete_expired)
        start_at_zero(parts.metrics)
        follow_pool(parts.metrics, parts.jobs.engine)
        self._settings = settings
        self._parts = parts
        self._now = clock.now
        self._clock = clock
        self._stop = stop
        self._sweep_now = asyncio.Event()
        self._relay_now = asyncio.Event()

    async def sweep(self, health: Health) -> None:
        """Sweep every `WAYBILL_SWEEP_SECONDS`, and when a slot is free and the last sweep left work behind."""
        seconds, work = self._settings.sweep_seconds, self._sweeper.sweep
        await every(seconds, work, name="sweeper", health=health, stop=self._stop, wake=self._sweep_now)

    async def relay(self, health: Health) -> None:
        """Publish endings as soon as they are written, and every `WAYBILL_SWEEP_SECONDS` what is left."""
        seconds, work = self._settings.sweep_seconds, self._publish
        await every(seconds, work, name="relay", health=health, stop=self._stop, wake=self._relay_now)

    async def measure(self, health: Health) -> None:
        """Set the gauges of what waits in the database, every `WAYBILL_SWEEP_SECONDS`."""
        seconds = self._settings.sweep_seconds
        await every(seconds, self._measure, name="gauges", health=health, stop=self._stop)

    async def set_clock(self) -> bool:
        """Learn the database's time before anything is claimed by it; False when stopped first."""
        while not self._stop.is_set():
            try:
                await in_thread(self._clock.compare)
            except Unavailable as error:
                logger.warning("the database's time is not known yet: %s", error)
            else:
                return True
            await until(self._stop, CLOCK_SECONDS)
        return False

    async def end(self) -> None:
        """On the signal, bring what runs to an end; what does not come to one goes back to the queue.

        The group is left in the meantime.
        """
        await self._stop.wait()
        await self.reception.settle(GRACE_SECONDS)
        stopped = await self._slots.drain(self._settings.drain_seconds, GRACE_SECONDS)
        try:
            await asyncio.wait_for(self._hand_over(stopped), GRACE_SECONDS)
        except TimeoutError:
            logger.warning("what is left is left to the sweepers")

    async def _hand_over(self, stopped: list[Claim]) -> None:
        for claim in stopped:
            await self._give_back(claim)
        await self._publish()

    async def _give_back(self, claim: Claim) -> None:
        event = ExportRequested(project_id=claim.job.project_id, batch_export_id=claim.job.id)
        bell = Outgoing(self._settings.requests_topic, claim.job.id.encode(), event.encode())
        try:
            # The run has done this itself, unless its thread hangs.
            await in_thread(self._parts.jobs.release, claim, self._now())
            await in_thread(self._parts.publisher.publish, [bell])
        except Unavailable as error:
            logger.warning("a stopped export is left to the sweepers: %s", error, extra=claim.log_context())

    async def tidy(self, health: Health) -> None:
        """Tidy up every few minutes."""
        await every(UPKEEP_SECONDS, self._upkeep.tidy, name="upkeep", health=health, stop=self._stop)

    async def _publish(self) -> None:
        engine, full = self._parts.jobs.engine, self.reception.outbox_full
        try:
            await in_thread(relay, engine, self._parts.publisher, self._now)
            full.clear()
        except Unavailable as error:
            logger.warning("events wait in the outbox: %s", error)
            if await in_thread(outbox.is_full, engine):
                full.set()

    async def _measure(self) -> None:
        now = self._now()
        not_before = now - timedelta(days=self._settings.stale_days)
        try:
            await in_thread(measure, self._parts.jobs.engine, self._parts.metrics, now=now, not_before=not_before)
        except Unavailable as error:
            logger.warning("what waits can't be counted: %s", error)

    def _on_end(self) -> None:
        self._relay_now.set()
        if self._sweeper.more:
            self._sweep_now.set()


def _listen(settings: Settings, reception: Reception, datadir: Path) -> faust.App:
    app = build_app(settings, group=settings.consumer_group, datadir=datadir)

    @app.agent(raw_topic(app, settings.requests_topic), name="requests")
    async def requests(stream: Any) -> None:
        # Left to itself, Faust acknowledges what an agent has in hand when it is cancelled or raises.
        async for event in stream.noack().events():
            try:
                await reception.answer(received(event))
            except Closed:
                return
            event.ack()

    return app


def _beat(bench: Bench, claim: Claim, progress: Progress) -> Hold:
    return bench.jobs.beat(claim, rows=progress.rows, bytes_=progress.bytes, now=bench.now())


def _rules(settings: Settings) -> Rules:
    return Rules(
        prefix=settings.prefix,
        row_limit=settings.row_limit,
        csv_neutralise=settings.csv_neutralise,
        link_lifetime=timedelta(hours=settings.link_hours),
        max_attempts=settings.max_attempts,
        retry_base=timedelta(seconds=settings.retry_base_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
    )


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
