"""Commands that run the daemons: consumer, notify. Each imports only its own, to halve the notifier's memory."""

import asyncio

from cli import build
from config.settings import CONSUMER_NEEDS, NOTIFY_NEEDS, load
from runtime.logs import set_up_logging
from runtime.self_metrics import build_metrics


def run_consumer() -> None:
    """Take export requests from Kafka and run the exports, until SIGTERM."""
    import consumer.app
    from pipeline.memory import tune_allocators

    settings = load(needs=CONSUMER_NEEDS)
    set_up_logging(settings.log_format, settings.log_level)
    parts = build.consumer_parts(settings, build_metrics())
    tune_allocators()
    asyncio.run(consumer.app.run(settings, parts))


def run_notify() -> None:
    """Email the user of each finished export, until SIGTERM."""
    import notify.app

    settings = load(needs=NOTIFY_NEEDS)
    set_up_logging(settings.log_format, settings.log_level)
    context = build.notifier_context(settings)
    asyncio.run(notify.app.run(settings, context, build_metrics(), build.publisher(settings)))
