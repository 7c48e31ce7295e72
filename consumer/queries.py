"""Reads exports without changing them: lists for people, and the work for the sweeper and the cleanup."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Engine,
    FromClause,
    Select,
    and_,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)

from config.events import Status
from config.labels import Outcome
from config.tables import batch_exports, runs
from consumer.models import EPOCH, FARTHEST, LATEST_CREATION, ExportKey, Job, Run, Unreadable, UnreadableJob
from consumer.rows import select_jobs, to_job, to_run
from runtime.database import reading, reading_serially


def is_live(run: FromClause, now: datetime) -> ColumnElement[bool]:
    """Select runs with a live lease; the condition of `Run.live`."""
    return and_(run.c.finished_at.is_(None), run.c.lease_until > now, run.c.lease_until <= now + FARTHEST)


def is_dead(run: FromClause, now: datetime) -> ColumnElement[bool]:
    """Select open runs without a live lease."""
    return and_(run.c.finished_at.is_(None), or_(run.c.lease_until <= now, run.c.lease_until > now + FARTHEST))


def list_jobs(
    engine: Engine, *, project_id: str | None = None, status: str | None = None, limit: int = 50
) -> list[Job | UnreadableJob]:
    """List exports, newest first; one that can't be read is listed with the reason."""
    query = select_jobs().order_by(batch_exports.c.created_at.desc(), batch_exports.c.id).limit(limit)
    if project_id is not None:
        query = query.where(batch_exports.c.project_id == project_id)
    if status is not None:
        query = query.where(batch_exports.c.status == status)
    found: list[Job | UnreadableJob] = []
    with reading(engine) as connection:
        for row in connection.execute(query).mappings():
            try:
                found.append(to_job(row))
            except Unreadable as error:
                key = ExportKey(project_id=str(row["project_id"]), export_id=str(row["id"]))
                found.append(UnreadableJob(key=key, status=str(row["status"]), why=str(error)))
    return found


def find_most_bytes(engine: Engine, export_id: str) -> int:
    """Return the most bytes that an attempt at an export has written so far, 0 if there was none."""
    most = select(func.coalesce(func.max(runs.c.bytes), 0)).where(runs.c.export_id == export_id)
    with reading(engine) as connection:
        return int(connection.execute(most).scalar_one())


def list_runs(engine: Engine, job: Job) -> list[Run]:
    """List the attempts at an export, first to last, without those that can't be read."""
    query = select(runs).where(runs.c.export_id == job.id).order_by(runs.c.attempt)
    return _read_runs(engine, query)


def list_due(
    engine: Engine, *, now: datetime, unseen_for: timedelta, not_before: datetime, project_slots: int, limit: int
) -> list[ExportKey]:
    """List exports that a worker should start now, oldest first.

    Those are: PROCESSING exports whose lease has expired; QUEUED exports whose next attempt is due; and QUEUED exports
    without a next attempt, created `unseen_for` ago or earlier, but not before `not_before`: no event was published
    for them, or a busy worker has it. Exports of projects that use all their slots are left out. Exports whose creation
    time can't be true are listed too, because a guard fails them.
    """
    listed = (_abandoned(engine, now), _waiting(engine, now, now - unseen_for, not_before))
    found: list[Any] = []
    with reading_serially(engine) as connection:
        for rows, condition in listed:
            query = select(rows).where(condition).order_by(rows.c.created_at, rows.c.id).limit(limit)
            if project_slots:
                query = query.where(rows.c.project_id.not_in(_full_projects(now, project_slots)))
            found += connection.execute(query).all()
    found.sort(key=lambda row: row.created_at or EPOCH)
    return [ExportKey(project_id=row.project_id, export_id=row.id, row_id=row.row_id) for row in found[:limit]]


def _full_projects(now: datetime, project_slots: int) -> Select[Any]:
    held = select(runs.c.project_id).where(is_live(runs, now)).group_by(runs.c.project_id)
    return held.having(func.count() >= project_slots)


def _abandoned(engine: Engine, now: datetime) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the PROCESSING exports, and a condition that selects those that no worker is running."""
    rows = _oldest_first(engine, Status.PROCESSING, or_(runs.c.finished_at.is_not(None), is_dead(runs, now)))
    return rows, rows.c.of_run.is_(true())


def _waiting(
    engine: Engine, now: datetime, seen: datetime, not_before: datetime
) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the QUEUED exports, and the condition that one of them is due."""
    rows = _oldest_first(engine, Status.QUEUED, runs.c.next_attempt_at)
    created_at, next_at = rows.c.created_at, rows.c.of_run
    retry = or_(next_at <= now, next_at > now + FARTHEST)
    unseen = and_(next_at.is_(None), created_at <= seen, created_at >= not_before)
    impossible = or_(created_at.is_(None), created_at < EPOCH, created_at > now + LATEST_CREATION)
    return rows, or_(retry, unseen, impossible)


def _oldest_first(engine: Engine, status: Status, of_run: ColumnElement[Any]) -> FromClause:
    """Select the exports with this status, oldest first, and as `of_run` a value of their latest run, or NULL.

    OFFSET 0 makes Postgres sort first and look the runs up one by one, until the limit of the query around is reached.
    Its own plan reads all runs instead when the limit is more than a few.
    """
    row_id = literal_column("batch_exports.rowid") if engine.dialect.name == "sqlite" else null()
    columns = (batch_exports.c.id, batch_exports.c.project_id, batch_exports.c.created_at, row_id.label("row_id"))
    sorted_rows = select(*columns).where(batch_exports.c.status == status)
    rows = sorted_rows.order_by(batch_exports.c.created_at, batch_exports.c.id).offset(0).subquery()
    latest = select(of_run).where(runs.c.export_id == rows.c.id).order_by(runs.c.attempt.desc()).limit(1)
    both = select(rows, latest.scalar_subquery().label("of_run"))
    return both.order_by(rows.c.created_at, rows.c.id).offset(0).subquery()


def list_latest_runs(engine: Engine, export_ids: Collection[str]) -> list[Run]:
    """List the latest attempt at each of these exports, also of exports whose row was deleted."""
    newest = select(runs.c.export_id, func.max(runs.c.attempt).label("attempt"))
    latest = newest.where(runs.c.export_id.in_(export_ids)).group_by(runs.c.export_id).subquery()
    same = and_(runs.c.export_id == latest.c.export_id, runs.c.attempt == latest.c.attempt)
    return _read_runs(engine, select(runs).join(latest, same))


def list_expired(engine: Engine, *, now: datetime, lifetime: timedelta, limit: int) -> list[Run]:
    """List completed attempts that still have a file although the export's link has expired, oldest first.

    Files of exports that were cancelled afterwards, and of exports whose row was deleted, are listed when a link that
    is valid for `lifetime` would have expired.
    """
    gone = or_(batch_exports.c.id.is_(None), batch_exports.c.status.in_([Status.CANCELLED, Status.FAILED]))
    expired = and_(batch_exports.c.status == Status.COMPLETED, batch_exports.c.expires_at <= now)
    query = select(runs).outerjoin(batch_exports, _same_export())
    query = query.where(
        runs.c.outcome == Outcome.COMPLETED,
        runs.c.object_key.is_not(None),
        runs.c.finished_at <= now - lifetime,
        or_(gone, expired),
    )
    return _read_runs(engine, query.order_by(runs.c.finished_at).limit(limit))


def list_orphans(engine: Engine, *, now: datetime, limit: int) -> list[ExportKey]:
    """List exports that have ended (most were cancelled) while the run of a dead worker is still open."""
    query = select(runs.c.project_id, runs.c.export_id).join(batch_exports, _same_export())
    query = query.where(is_dead(runs, now), batch_exports.c.status.not_in([Status.QUEUED, Status.PROCESSING]))
    return _read_keys(engine, query.limit(limit))


def list_ownerless(engine: Engine, *, now: datetime, limit: int) -> list[ExportKey]:
    """List exports with an open attempt and an expired lease, whose row was deleted."""
    query = select(runs.c.project_id, runs.c.export_id).outerjoin(batch_exports, _same_export())
    return _read_keys(engine, query.where(is_dead(runs, now), batch_exports.c.id.is_(None)).limit(limit))


def _same_export() -> ColumnElement[bool]:
    return and_(batch_exports.c.id == runs.c.export_id, batch_exports.c.project_id == runs.c.project_id)


def _read_keys(engine: Engine, query: Select[Any]) -> list[ExportKey]:
    with reading(engine) as connection:
        return [ExportKey(project_id=project, export_id=export) for project, export in connection.execute(query)]


def _read_runs(engine: Engine, query: Select[Any]) -> list[Run]:
    """Read runs; those that can't be read are left out."""
    found = []
    with reading(engine) as connection:
        for row in connection.execute(query).mappings():
            with suppress(Unreadable):
                found.append(to_run(row))
    return found
