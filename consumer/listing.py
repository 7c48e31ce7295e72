"""Looks at exports without changing them: lists for people, and the work that the sweeper finds."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, func, or_, select

from config.events import Status
from config.tables import batch_exports, runs
from consumer.records import Job, Run
from consumer.store import looking, select_jobs, to_job, to_run


def list_jobs(
    engine: Engine, *, project_id: str | None = None, status: str | None = None, limit: int = 50
) -> list[Job]:
    """List exports, newest first."""
    query = select_jobs().order_by(batch_exports.c.created_at.desc(), batch_exports.c.id).limit(limit)
    if project_id is not None:
        query = query.where(batch_exports.c.project_id == project_id)
    if status is not None:
        query = query.where(batch_exports.c.status == status)
    with looking(engine) as connection:
        return [to_job(row) for row in connection.execute(query).mappings()]


def list_runs(engine: Engine, job: Job) -> list[Run]:
    """List the attempts at an export, first to last."""
    query = select(runs).where(runs.c.export_id == job.id).order_by(runs.c.attempt)
    with looking(engine) as connection:
        return [to_run(row) for row in connection.execute(query).mappings()]


def list_due(
    engine: Engine, *, now: datetime, unseen_for: timedelta, not_before: datetime, project_slots: int, limit: int
) -> list[Job]:
    """List exports that somebody should take up now, oldest first.

    Those are: PROCESSING by a worker of ours that has no lease any more; QUEUED with a next attempt that is due;
    QUEUED with none, created `unseen_for` ago or longer (nobody rang, or a busy worker has the event), but not
    before `not_before`. Exports of projects that hold all their slots are left out.
    """
    age = batch_exports.c.created_at
    abandoned = and_(
        batch_exports.c.status == Status.PROCESSING,
        runs.c.attempt.is_not(None),
        or_(runs.c.finished_at.is_not(None), runs.c.lease_until <= now),
    )
    postponed = and_(batch_exports.c.status == Status.QUEUED, runs.c.next_attempt_at <= now)
    unseen = and_(
        batch_exports.c.status == Status.QUEUED,
        runs.c.next_attempt_at.is_(None),
        age <= now - unseen_for,
        age >= not_before,
    )
    query = select_jobs().where(or_(abandoned, postponed, unseen)).order_by(age, batch_exports.c.id).limit(limit)
    if project_slots:
        held = runs.alias("held")
        full = select(held.c.project_id).where(held.c.finished_at.is_(None), held.c.lease_until > now)
        full = full.group_by(held.c.project_id).having(func.count() >= project_slots)
        query = query.where(batch_exports.c.project_id.not_in(full))
    with looking(engine) as connection:
        return [to_job(row) for row in connection.execute(query).mappings()]


def list_orphans(engine: Engine, *, now: datetime, limit: int) -> list[Job]:
    """List exports that have ended, mostly by the user's cancelling, while their dead worker's run is still open."""
    query = select_jobs().where(
        batch_exports.c.status.not_in([Status.QUEUED, Status.PROCESSING]),
        runs.c.finished_at.is_(None),
        runs.c.lease_until <= now,
    )
    with looking(engine) as connection:
        return [to_job(row) for row in connection.execute(query.limit(limit)).mappings()]
