"""The consumer daemon: listens for request events on Kafka and runs exports in slots until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faust
from aiohttp import web

from config.errors import Unavailable
from config.labels import PortName
from config.links import read_links
from config.metrics import Metrics
from config.settings import Settings
from consumer import outbox
from consumer.acknowledgements import Acknowledgements
from consumer.attempt import Export, ExportPolicy, WorkerContext, run_attempt
from consumer.claim import Claimer
from consumer.cleanup import Cleanup
from consumer.drain import GRACE_SECONDS, Drain
from consumer.guards import GuardPolicy
from consumer.heartbeat import Timing
from consumer.intake import Closed, Intake
from consumer.job_store import Jobs
from consumer.metrics import measure_queue, start_at_zero
from consumer.row_url import LinkPolicy
from consumer.slots import Slots
from consumer.sweeper import Sweeper
from pipeline.read.connections import Sources
from pipeline.storage import Storage
from pipeline.types import OutputOptions
from runtime.clock import DatabaseClock
from runtime.connections import limits_of, raise_descriptor_limit
from runtime.dead_letters import read_message
from runtime.http import Check, Health, health_routes, serve
from runtime.kafka import build_app, raw_topic
from runtime.publisher import Publisher
from runtime.retry import Backoff
from runtime.self_metrics import follow_loop, follow_pool
from runtime.supervise import run_every, stop_on_signals, supervise, wait_for_dependencies
from runtime.threads import in_thread
from runtime.tracing import Tracer

logger = logging.getLogger(__name__)

CLEANUP_SECONDS = 300.0
LONGEST_DELAY = 24 * 3600.0
"""Between two attempts at an export, in seconds."""

UNSEEN_SWEEPS = 2
"""After this many sweeps, a QUEUED row is started without its event."""


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What the consumer is built from; `checks` try what it depends on, by name.

    `operator_routes` gives what the internal port serves besides the health.
    """

    jobs: Jobs
    sources: Sources
    storage: Storage
    publisher: Publisher
    metrics: Metrics
    export: Export
    checks: Mapping[str, Check]
    link_routes: tuple[web.RouteDef, ...] = ()
    operator_routes: Callable[[Health], tuple[web.RouteDef, ...]] = lambda _: ()
    tracer: Tracer = field(default_factory=Tracer)


async def run(settings: Settings, needs: Dependencies) -> None:
    """Consume until SIGTERM or SIGINT, then shut down within `WAYBILL_DRAIN_SECONDS` and a few steps of grace.

    After the signal nothing is claimed and the consumer group is left. Running exports may finish; the rest goes back
    to the queue with a new request event.
    """
    stop = stop_on_signals()
    health = Health(needs.checks)
    worker = _Worker(settings, needs, stop)
    with TemporaryDirectory(prefix="waybill-consumer-", ignore_cleanup_errors=True) as folder:
        async with _serve_ports(settings, needs, health):
            if not await wait_for_dependencies(health, stop):
                return
            if not await worker.clock.start(stop):
                return
            draining = asyncio.create_task(_drain_on(stop, worker.drain))
            timers = asyncio.gather(*worker.timers(health), follow_loop(needs.metrics, stop))
            build = partial(_listen, settings, worker.intake, Path(folder))
            await supervise(build, health=health, metrics=needs.metrics, stop=stop)
            health.rest()
            await draining
            with suppress(TimeoutError):
                await asyncio.wait_for(timers, GRACE_SECONDS)


@asynccontextmanager
async def _serve_ports(settings: Settings, needs: Dependencies, health: Health) -> AsyncIterator[None]:
    """Serve the internal port and, if there are links, theirs, while the context is open."""
    links_port, internal_port = settings.consumer_ports
    internal = (*health_routes(needs.metrics.registry, health), *needs.operator_routes(health))
    ports: list[tuple[PortName, int, tuple[web.RouteDef, ...]]] = [("internal", internal_port, internal)]
    if needs.link_routes:
        ports.append(("links", links_port, needs.link_routes))
    descriptors = raise_descriptor_limit()
    async with AsyncExitStack() as serving:
        for name, port, routes in ports:
            limits = limits_of(name, descriptors)
            listening = serve(settings.http_host, port, routes, name=name, limits=limits, metrics=needs.metrics)
            await serving.enter_async_context(listening)
        yield


class _Worker:
    """Connects the parts of one consumer process: slots, the intake that fills them, and the periodic tasks."""

    def __init__(self, settings: Settings, needs: Dependencies, stop: asyncio.Event) -> None:
        self.clock = DatabaseClock(needs.jobs.engine)
        now = self.clock.now
        guards = GuardPolicy(
            enabled=settings.enabled == "true",
            stale_after=timedelta(days=settings.stale_days),
            max_attempts=settings.max_attempts,
        )
        context = WorkerContext(
            jobs=needs.jobs,
            sources=needs.sources,
            storage=needs.storage,
            metrics=needs.metrics,
            policy=_export_policy(settings),
            export=needs.export,
            now=now,
            tracer=needs.tracer,
        )
        slots = Slots(
            settings.slots,
            work=lambda claim, progress: run_attempt(claim, context, progress),
            extend_lease=context.extend_lease,
            on_end=self._on_end,
            timing=Timing(
                heartbeat=settings.heartbeat_seconds, lease=settings.lease_seconds, stall=settings.stall_seconds
            ),
            metrics=needs.metrics,
        )
        self.intake = Intake(
            claimer=Claimer(jobs=needs.jobs, policy=guards, worker=_worker_name(), metrics=needs.metrics, now=now),
            slots=slots,
            publisher=needs.publisher,
            dead_letter_topic=settings.dead_letter_topic,
            metrics=needs.metrics,
            closed=stop,
        )
        self.drain = Drain(
            intake=self.intake,
            slots=slots,
            jobs=needs.jobs,
            publisher=needs.publisher,
            relay=self._relay,
            requests_topic=settings.requests_topic,
            seconds=settings.drain_seconds,
            now=now,
        )
        self._sweeper = Sweeper(
            context=context,
            intake=self.intake,
            clock=self.clock,
            policy=guards,
            project_slots=settings.project_slots,
            unseen_for=timedelta(seconds=UNSEEN_SWEEPS * settings.sweep_seconds),
        )
        self._cleanup = Cleanup(
            jobs=needs.jobs,
            storage=needs.storage,
            now=now,
            lease=timedelta(seconds=settings.lease_seconds),
            prefix=settings.prefix,
            delete_expired=settings.delete_expired,
            link_lifetime=settings.link_lifetime,
            history=settings.history,
        )
        if not guards.enabled:
            logger.warning(
                "exports are off: LANGFUSE_S3_BATCH_EXPORT_ENABLED is not true, so requests are dead letters"
            )
        start_at_zero(needs.metrics)
        needs.metrics.unreadable_records.labels(settings.requests_topic)
        follow_pool(needs.metrics, needs.jobs.engine)
        self._settings = settings
        self._needs = needs
        self._stop = stop
        self._sweep_now = asyncio.Event()
        self._relay_now = asyncio.Event()

    def timers(self, health: Health) -> list[Coroutine[Any, Any, None]]:
        """Return the periodic tasks; sweep and relay also run when an export has ended."""
        seconds, task = self._settings.sweep_seconds, partial(run_every, health=health, stop=self._stop)
        return [
            task(seconds, self._sweeper.sweep, name="sweeper", wake=self._sweep_now),
            task(seconds, self._relay, name="relay", wake=self._relay_now),
            task(seconds, self._measure, name="gauges"),
            task(CLEANUP_SECONDS, self._cleanup.run, name="cleanup"),
        ]

    async def _relay(self) -> None:
        engine, full = self._needs.jobs.engine, self.intake.outbox_full
        try:
            await in_thread(outbox.relay, engine, self._needs.publisher, self.clock.now, self._needs.metrics)
            full.clear()
        except Unavailable as error:
            logger.warning("events wait in the outbox: %s", error)
            if await in_thread(outbox.is_full, engine):
                full.set()

    async def _measure(self) -> None:
        engine, metrics, now = self._needs.jobs.engine, self._needs.metrics, self.clock.now()
        not_before = now - timedelta(days=self._settings.stale_days)
        try:
            await in_thread(measure_queue, engine, metrics, now=now, not_before=not_before)
        except Unavailable as error:
            logger.warning("the queue can't be measured: %s", error)

    def _on_end(self) -> None:
        self._relay_now.set()
        if self._sweeper.more:
            self._sweep_now.set()


async def _drain_on(stop: asyncio.Event, drain: Drain) -> None:
    await stop.wait()
    await drain.run()


def _listen(settings: Settings, intake: Intake, datadir: Path) -> faust.App:
    app = build_app(settings, group=settings.consumer_group, datadir=datadir)

    @app.agent(raw_topic(app, settings.requests_topic), name="requests")
    async def requests(stream: Any) -> None:
        # By default Faust also acknowledges the event in progress when its agent is cancelled or raises.
        with Acknowledgements() as acknowledgements:
            async for event in stream.noack().events():
                try:
                    await acknowledgements.add(event.ack, await intake.begin(read_message(event)))
                except Closed:
                    return

    return app


def _export_policy(settings: Settings) -> ExportPolicy:
    return ExportPolicy(
        output=OutputOptions(
            prefix=settings.prefix,
            row_limit=settings.row_limit,
            row_bytes=settings.max_row_mib << 20,
            csv_neutralise=settings.csv_neutralise,
            csv_bom=settings.csv_bom,
        ),
        links=LinkPolicy(lifetime=settings.link_lifetime, own=read_links(settings)),
        max_attempts=settings.max_attempts,
        backoff=Backoff(first=settings.retry_base_seconds, longest=LONGEST_DELAY),
        lease=timedelta(seconds=settings.lease_seconds),
    )


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
