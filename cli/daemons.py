"""Commands that run the daemons: consumer, notify. Each imports only its own, to halve the notifier's memory."""

import logging
import tempfile
from collections.abc import Collection

from cli import build
from cli.imports import collecting_nothing
from config.settings import CONSUMER_NEEDS, NOTIFY_NEEDS, Misconfigured, Settings, list_unknown, load
from runtime.kafka_clients import check_login
from runtime.logs import set_up_logging
from runtime.self_metrics import build_metrics
from runtime.supervise import run_daemon

logger = logging.getLogger(__name__)


def run_consumer() -> None:
    """Take export requests from Kafka and run the exports, until SIGTERM."""
    _check_temporary_folder()
    with collecting_nothing():
        import consumer.app
        from pipeline.memory import tune_allocators

    settings = _start(CONSUMER_NEEDS)
    with collecting_nothing():  # the library of the store is imported here
        parts = build.consumer_parts(settings, build_metrics())
    tune_allocators()
    run_daemon(consumer.app.run(settings, parts))


def run_notify() -> None:
    """Email the user of each finished export, until SIGTERM."""
    _check_temporary_folder()
    with collecting_nothing():
        import notify.app

    settings = _start(NOTIFY_NEEDS)
    context = build.notifier_context(settings)
    run_daemon(notify.app.run(settings, context, build_metrics(), build.publisher(settings)))


def _check_temporary_folder() -> None:
    """Raise Misconfigured if no temporary file can be written: libraries need one when they are loaded."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise Misconfigured(["no temporary file can be written: mount a writable /tmp, or set TMPDIR"]) from error


def _start(needs: Collection[str]) -> Settings:
    """Read the settings, set up logging, and warn of variables that are probably misspelt.

    Raises Misconfigured, also if Kafka's clients can't log in as they say.
    """
    settings = load(needs=needs)
    check_login(settings)
    set_up_logging(settings.log_format, settings.log_level)
    for unknown in list_unknown():
        logger.warning("%s", unknown)
    return settings
