"""Measures what waits in the database, for the gauges of a consumer."""

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, and_, func, select

from config.events import Status
from config.metrics import Metrics
from config.tables import batch_exports, outbox, runs
from runtime.database import reading


def measure(engine: Engine, metrics: Metrics, *, now: datetime, not_before: datetime) -> None:
    """Set the gauges to what one query finds; raises Unavailable.

    Exports created before `not_before` are nobody's work and do not count. A queued one waits since it was put in
    the queue, by the user or after an attempt.
    """
    job = batch_exports.c
    queued = and_(job.status == Status.QUEUED, job.created_at >= not_before)
    running = runs.join(batch_exports, job.id == runs.c.export_id)
    open_ = and_(job.status == Status.PROCESSING, runs.c.finished_at.is_(None))
    waiting = outbox.c.published_at.is_(None)
    query = select(
        select(func.count()).where(queued).select_from(batch_exports).scalar_subquery().label("queued"),
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
    metrics.oldest_queued.set(age(found.oldest_queued))
    metrics.oldest_heartbeat.set(age(found.heartbeat))
    metrics.outbox_waiting.set(found.outbox)
    metrics.outbox_oldest.set(age(found.oldest_event))
