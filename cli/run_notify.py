"""The command that runs the notifier; it imports nothing that only exports need, which would double its memory."""

import asyncio
from datetime import timedelta

import notify.app
from config.links import read_links
from config.settings import NOTIFY_NEEDS, load
from notify.deliver import NotifierContext, read_transport
from notify.notices import Notices
from runtime.database import open_database
from runtime.logs import set_up
from runtime.self_metrics import process_metrics
from runtime.tracing import open_tracer


def run_notify() -> None:
    """Mail the person of each finished export, until SIGTERM."""
    settings = load(needs=NOTIFY_NEEDS)
    transport = read_transport(settings)
    set_up(settings.log_format, settings.log_level)
    engine = open_database(settings.database)
    notices = Notices(
        engine,
        retry_for=timedelta(hours=settings.notice_hours),
        first_delay=timedelta(seconds=settings.retry_base_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
    )
    tracer = open_tracer(settings.otel_endpoint, "waybill-notify")
    context = NotifierContext(engine, notices, transport, settings.nextauth_url, read_links(settings), tracer)
    asyncio.run(notify.app.run(settings, context, process_metrics()))
