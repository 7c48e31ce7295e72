"""Reads exports without changing them: lists for people, and the work for the sweeper and the cleanup."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, RowMapping, Select, and_, func, or_, select

from config.events import Status
from config.labels import Outcome
from config.tables import batch_exports, runs
from consumer.models import Job, Run
from runtime.database import reading


def select_jobs() -> Select[Any]:
    """Select exports, each with its latest run; read the rows with `to_job`."""
    other = runs.alias("other")
    newest = select(func.max(other.c.attempt)).where(other.c.export_id == batch_exports.c.id).scalar_subquery()
    latest = and_(runs.c.export_id == batch_exports.c.id, runs.c.attempt == newest)
    names = [column.label(f"run_{column.name}") for column in runs.c]
    return select(*batch_exports.c, *names).select_from(batch_exports.outerjoin(runs, latest))


def to_job(row: RowMapping) -> Job:
    """Convert one row of `select_jobs`."""
    fields = {column.name: row[column.name] for column in batch_exports.c}
    run = None if row["run_attempt"] is None else to_run(row, "run_")
    return Job(run=run, **fields)


def to_run(row: RowMapping, prefix: str = "") -> Run:
    """Convert one row of `waybill_runs`, whose columns are named with `prefix`."""
    fields = {column.name: row[prefix + column.name] for column in runs.c}
    outcome = fields.pop("outcome")
    return Run(outcome=None if outcome is None else Outcome(outcome), **fields)


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
    """List exports that a worker should start now, oldest first.

    Those are: PROCESSING exports whose lease has expired; QUEUED exports whose next attempt is due; and QUEUED exports
    without a next attempt, created `unseen_for` ago or earlier, but not before `not_before`: no event was published
    for them, or a busy worker has it. Exports of projects that use all their slots are left out.
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
    """List the latest attempt at each of these exports, also of exports whose row was deleted."""
    newest = select(runs.c.export_id, func.max(runs.c.attempt).label("attempt"))
    latest = newest.where(runs.c.export_id.in_(export_ids)).group_by(runs.c.export_id).subquery()
    same = and_(runs.c.export_id == latest.c.export_id, runs.c.attempt == latest.c.attempt)
    with reading(engine) as connection:
        return [to_run(row) for row in connection.execute(select(runs).join(latest, same)).mappings()]


def list_expired(engine: Engine, *, now: datetime, limit: int) -> list[Run]:
    """List completed attempts that still have a file although the export's link has expired, oldest expiry first."""
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
    """List exports that have ended (most were cancelled) while the run of a dead worker is still open."""
    query = select_jobs().where(
        batch_exports.c.status.not_in([Status.QUEUED, Status.PROCESSING]),
        runs.c.finished_at.is_(None),
        runs.c.lease_until <= now,
    )
    with reading(engine) as connection:
        return [to_job(row) for row in connection.execute(query.limit(limit)).mappings()]


def list_ownerless(engine: Engine, *, now: datetime, limit: int) -> list[Run]:
    """List open attempts with an expired lease whose export's row was deleted."""
    owned = select(batch_exports.c.id).where(
        batch_exports.c.id == runs.c.export_id, batch_exports.c.project_id == runs.c.project_id
    )
    query = select(runs).where(runs.c.finished_at.is_(None), runs.c.lease_until <= now, ~owned.exists())
    with reading(engine) as connection:
        return [to_run(row) for row in connection.execute(query.limit(limit)).mappings()]
