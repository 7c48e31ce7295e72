"""The command that runs the consumer."""

import asyncio

import consumer.app
from cli import build
from config.settings import CONSUMER_NEEDS, load
from pipeline.export import export
from pipeline.memory import keep_small
from runtime.logs import set_up
from runtime.self_metrics import process_metrics
from runtime.tracing import open_tracer


def run_consumer() -> None:
    """Take export requests from Kafka and run them, until SIGTERM."""
    settings = load(needs=CONSUMER_NEEDS)
    set_up(settings.log_format, settings.log_level)
    metrics = process_metrics()
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
