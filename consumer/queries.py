"""Looks at exports without changing them: lists for people, and the work that the sweeper finds."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, func, or_, select

from config.events import Status
from config.labels import Outcome
from config.tables import batch_exports, runs
from consumer.models import Job, Run
from consumer.store import select_jobs, to_job, to_run
from runtime.database import reading


def list_jobs(
    engine: Engine, *, project_id: str | None = None, status: str | None = None, limit: int = 50
) -> list[Job]:
    """List exports, newest first."""
    query = select_jobs().order_by(batch_exports.c.created_at.desc(), batch_exports.c.id).limit(limit)
    if project_id is not None:
        query = query.where(batch_exports.c.project_id == project_id)
    if status is not None:
        query = query.where(batch_exports.c.status == status)
    with reading(engine) as connection:
        return [to_job(row) for row in connection.execute(query).mappings()]


def list_runs(engine: Engine, job: Job) -> list[Run]:
    """List the attempts at an export, first to last."""
    query = select(runs).where(runs.c.export_id == job.id).order_by(runs.c.attempt)
    with reading(engine) as connection:
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
    with reading(engine) as connection:
        return [to_job(row) for row in connection.execute(query).mappings()]


def list_latest_runs(engine: Engine, export_ids: Collection[str]) -> list[Run]:
    """List the latest attempt at each of these exports that had any, also of those whose row is gone."""
    newest = select(runs.c.export_id, func.max(runs.c.attempt).label("attempt"))
    latest = newest.where(runs.c.export_id.in_(export_ids)).group_by(runs.c.export_id).subquery()
    same = and_(runs.c.export_id == latest.c.export_id, runs.c.attempt == latest.c.attempt)
    with reading(engine) as connection:
        return [to_run(row) for row in connection.execute(select(runs).join(latest, same)).mappings()]


def list_expired(engine: Engine, *, now: datetime, limit: int) -> list[Run]:
    """List attempts that completed and have a file still, of exports whose link has expired, first expired first."""
    query = select(runs).join(batch_exports, batch_exports.c.id == runs.c.export_id)
    query = query.where(
        batch_exports.c.status == Status.COMPLETED,
        batch_exports.c.project_id == runs.c.project_id,
        batch_exports.c.expires_at <= now,
        runs.c.outcome == Outcome.COMPLETED,
        runs.c.object_key.is_not(None),
    )
    with reading(engine) as connection:
        found = connection.execute(query.order_by(batch_exports.c.expires_at).limit(limit)).mappings()
        return [to_run(row) for row in found]


def list_orphans(engine: Engine, *, now: datetime, limit: int) -> list[Job]:
    """List exports that have ended, mostly by the user's cancelling, while their dead worker's run is still open."""
    query = select_jobs().where(
        batch_exports.c.status.not_in([Status.QUEUED, Status.PROCESSING]),
        runs.c.finished_at.is_(None),
        runs.c.lease_until <= now,
    )
    with reading(engine) as connection:
        return [to_job(row) for row in connection.execute(query.limit(limit)).mappings()]


def list_ownerless(engine: Engine, *, now: datetime, limit: int) -> list[Run]:
    """List attempts that are open, without a lease, and whose export's row the application has deleted."""
    owned = select(batch_exports.c.id).where(
        batch_exports.c.id == runs.c.export_id, batch_exports.c.project_id == runs.c.project_id
    )
    query = select(runs).where(runs.c.finished_at.is_(None), runs.c.lease_until <= now, ~owned.exists())
    with reading(engine) as connection:
        return [to_run(row) for row in connection.execute(query.limit(limit)).mappings()]
