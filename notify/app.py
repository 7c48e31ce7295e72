"""Consumes completions from Kafka, records each as a notice before it is acknowledged, and sends the due notices."""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faust

from config.metrics import Metrics
from config.settings import Settings
from notify.deliver import NotifierContext
from notify.intake import check_tables
from notify.notifier import Notifier
from runtime.connections import limits_of, raise_descriptor_limit
from runtime.dead_letters import read_message
from runtime.http import Health, health_routes, serve
from runtime.kafka import build_app, raw_topic
from runtime.kafka_admin import check_topics
from runtime.publisher import Publisher
from runtime.self_metrics import follow_loop
from runtime.supervise import run_every, stop_on_signals, supervise

GRACE_SECONDS = 5.0
"""How long a receiver may take at shutdown to respond to a message that it has already received."""

PRUNE_SECONDS = 300.0


async def run(settings: Settings, context: NotifierContext, metrics: Metrics, publisher: Publisher) -> None:
    """Run the notifier until SIGTERM or SIGINT; messages being sent then get `WAYBILL_DRAIN_SECONDS`."""
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
    with TemporaryDirectory(prefix="waybill-notify-", ignore_cleanup_errors=True) as folder:
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


def _build_app(settings: Settings, notifier: Notifier, datadir: Path) -> faust.App:
    app = build_app(settings, group=settings.notify_group, datadir=datadir)

    @app.agent(raw_topic(app, settings.completions_topic), name="completions")
    async def completions(stream: Any) -> None:
        # Faust would acknowledge the event of a cancelled agent, but the event must stay until its row exists.
        async for event in stream.noack().events():
            await notifier.intake.handle(read_message(event))
            event.ack()

    return app
