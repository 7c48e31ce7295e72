"""Commands that run the daemons."""

import asyncio
from datetime import timedelta

import consumer.app
import notify.app
from cli import build
from config.links import read_links
from config.logs import set_up
from config.settings import CONSUMER_NEEDS, NOTIFY_NEEDS, load
from config.tracing import open_tracer
from notify.deliver import Desk, read_post
from notify.notices import Notices
from pipeline.memory import keep_small
from pipeline.run import export


def run_consumer() -> None:
    """Take export requests from Kafka and run them, until SIGTERM."""
    settings = load(needs=CONSUMER_NEEDS)
    set_up(settings.log_format, settings.log_level)
    metrics = build.metrics()
    storage = build.storage(settings, lambda outcome: metrics.upload_parts.labels(outcome).inc())
    jobs = build.jobs(settings)
    checks = build.checks(settings, jobs.engine) | {"storage": storage.check}
    keep_small()
    parts = consumer.app.Parts(
        jobs=jobs,
        sources=build.sources(settings, jobs.engine),
        storage=storage,
        publisher=build.publisher(settings),
        metrics=metrics,
        export=export,
        checks={name: checks[name] for name in ("database", "clickhouse", "storage", "kafka")},
        tracer=open_tracer(settings.otel_endpoint, "waybill-consumer"),
        routes=build.downloads(settings, jobs, storage, metrics),
    )
    asyncio.run(consumer.app.run(settings, parts))


def run_notify() -> None:
    """Mail the person of each finished export, until SIGTERM."""
    settings = load(needs=NOTIFY_NEEDS)
    post = read_post(settings)
    set_up(settings.log_format, settings.log_level)
    engine = build.engine(settings)
    notices = Notices(
        engine,
        patience=timedelta(hours=settings.notice_hours),
        first_pause=timedelta(seconds=settings.retry_base_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
    )
    tracer = open_tracer(settings.otel_endpoint, "waybill-notify")
    desk = Desk(engine, notices, post, settings.nextauth_url, read_links(settings), tracer)
    asyncio.run(notify.app.run(settings, desk, build.metrics()))
