"""Gives the consumer's metrics their labels and start values, and measures the gauges of what is queued."""

import logging
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import Engine, and_, func, select

from config.events import Status
from config.labels import Failure, Outcome, UploadOutcome, Verdict
from config.metrics import Metrics
from config.tables import batch_exports, outbox, runs
from consumer.models import LATE_CREATION, Job
from pipeline.tables import TABLES
from pipeline.types import FORMATS
from runtime.database import reading

logger = logging.getLogger(__name__)

OTHER = "other"
UPLOAD_OUTCOMES: tuple[UploadOutcome, ...] = ("completed", "aborted")
DEAD_LETTER_VERDICTS = (Verdict.MALFORMED, Verdict.UNREADABLE, Verdict.MISSING, Verdict.DISABLED, Verdict.BUG)


def export_labels(job: Job) -> tuple[str, str]:
    """Return the labels `table` and `format` of an export; unknown values become "other"."""
    table, format_ = job.table, job.format.upper()
    return table if table in TABLES else OTHER, format_ if format_ in FORMATS else OTHER


def count_outcome(metrics: Metrics, job: Job, outcome: Outcome, seconds: float) -> None:
    """Count an attempt that ended, and how long it took in seconds."""
    metrics.exports.labels(outcome, *export_labels(job)).inc()
    metrics.duration.labels(outcome).observe(max(seconds, 0))


def start_at_zero(metrics: Metrics) -> None:
    """Export every series of the consumer's counters as 0; Prometheus sees no increase when a series appears as 1."""
    for verdict in Verdict:
        metrics.requests.labels(verdict)
    for verdict in DEAD_LETTER_VERDICTS:
        metrics.dead_letters.labels(verdict)
    for failure in Failure:
        metrics.attempts_failed.labels(failure)
    for upload_outcome in UPLOAD_OUTCOMES:
        metrics.uploads.labels(upload_outcome)
    for table in TABLES:
        metrics.unknown_keys.labels(table)
    for table, format_ in product((*TABLES, OTHER), (*FORMATS, OTHER)):
        metrics.exports_started.labels(table, format_)
        for outcome in Outcome:
            metrics.exports.labels(outcome, table, format_)


def measure_queue(engine: Engine, metrics: Metrics, *, now: datetime, not_before: datetime) -> None:
    """Set the gauges of queued exports, running exports and the outbox with one query; raises Unavailable.

    Exports created before `not_before` do not count, because no worker will start them. The age of a queued export
    begins when it was last set to QUEUED, by the user or after an attempt.
    """
    job = batch_exports.c
    future = and_(job.status == Status.QUEUED, job.created_at > now + LATE_CREATION)
    queued = and_(job.status == Status.QUEUED, job.created_at >= not_before)
    running = runs.join(batch_exports, job.id == runs.c.export_id)
    open_ = and_(job.status == Status.PROCESSING, runs.c.finished_at.is_(None))
    waiting = outbox.c.published_at.is_(None)
    query = select(
        select(func.count()).where(queued).select_from(batch_exports).scalar_subquery().label("queued"),
        select(func.count()).where(future).select_from(batch_exports).scalar_subquery().label("in_future"),
        select(func.min(job.updated_at)).where(queued).scalar_subquery().label("oldest_queued"),
        select(func.min(runs.c.heartbeat_at)).select_from(running).where(open_).scalar_subquery().label("heartbeat"),
        select(func.count()).where(waiting).select_from(outbox).scalar_subquery().label("outbox"),
        select(func.min(outbox.c.created_at)).where(waiting).scalar_subquery().label("oldest_event"),
    )
    with reading(engine) as connection:
        found = connection.execute(query).one()

    def age(since: Any) -> float:
        return 0 if since is None else max((now - since).total_seconds(), 0)

    metrics.queued.set(found.queued)
    metrics.in_future.set(found.in_future)
    metrics.oldest_queued.set(age(found.oldest_queued))
    metrics.oldest_heartbeat.set(age(found.heartbeat))
    metrics.outbox_waiting.set(found.outbox)
    metrics.outbox_oldest.set(age(found.oldest_event))
    if found.in_future:
        text = "queued exports have a creation time in the future: their producer may write local time instead of UTC"
        logger.warning(text, extra={"exports": found.in_future})
