"""Ends exports by their ids alone, for rows that can't be read and for outcomes that can't be stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, exists, func, literal_column, select, true, update

from config.events import ExportFinished, Status, are_valid_ids
from config.labels import Failure, Outcome
from config.tables import batch_exports, runs
from consumer import outbox
from consumer.models import Claim, ExportKey
from consumer.queries import is_dead, is_live
from runtime.database import writing


def fail_unreadable(engine: Engine, topic: str, key: ExportKey, failure: Failure, *, text: str, now: datetime) -> bool:
    """Set an export to FAILED although its row can't be read; `text` is for the user.

    The completion event, if one is possible, has the ids and the reason and nothing else of the row. False if the
    export has ended meanwhile or a worker runs it. Raises Unavailable.
    """
    with writing(engine) as connection:
        running = exists().where(runs.c.export_id == batch_exports.c.id, is_live(runs, now))
        if not _fail(connection, and_(_is_row(key), ~running), text, now):
            return False
        _close_runs(connection, key, true(), _ended(Outcome.FAILED, failure, text, now))
        if (event := _completion(connection, key, text, now)) is not None:
            outbox.add(connection, topic, event, now, None)
    return True


def fail_claimed(engine: Engine, claim: Claim, failure: Failure, *, text: str, error: str, now: datetime) -> bool:
    """Set a claimed export to FAILED without an event, because its outcome can't be stored in the regular way.

    `text` is for the user, `error` for operators. False if the claim was lost. Raises Unavailable.
    """
    ours = and_(runs.c.attempt == claim.attempt, runs.c.worker == claim.worker)
    key = ExportKey(project_id=claim.job.project_id, export_id=claim.job.id)
    with writing(engine) as connection:
        running = exists().where(runs.c.export_id == batch_exports.c.id, ours, runs.c.finished_at.is_(None))
        if not _fail(connection, and_(_is_row(key), running), text, now):
            return False
        _close_runs(connection, key, ours, _ended(Outcome.FAILED, failure, error, now))
    return True


def close_dead_runs(engine: Engine, key: ExportKey, now: datetime) -> bool:
    """Close the runs of dead workers of an export that has no row or an unreadable one; False if there are none."""
    ended = _ended(Outcome.CANCELLED, Failure.LOST, "the worker stopped sending heartbeats", now)
    with writing(engine) as connection:
        return _close_runs(connection, key, is_dead(runs, now), ended)


def _is_row(key: ExportKey) -> ColumnElement[bool]:
    if key.row_id is not None:
        rowid: ColumnElement[int] = literal_column("rowid")
        return rowid == key.row_id
    return and_(batch_exports.c.id == key.export_id, batch_exports.c.project_id == key.project_id)


def _fail(connection: Connection, condition: ColumnElement[bool], text: str, now: datetime) -> bool:
    open_ = batch_exports.c.status.in_([Status.QUEUED, Status.PROCESSING])
    values = {"status": Status.FAILED, "finished_at": now, "updated_at": now, "log": outbox.make_printable(text)}
    return connection.execute(update(batch_exports).where(open_, condition).values(values)).rowcount == 1


def _close_runs(
    connection: Connection, key: ExportKey, condition: ColumnElement[bool], ended: Mapping[str, Any]
) -> bool:
    open_ = and_(runs.c.export_id == key.export_id, runs.c.finished_at.is_(None), condition)
    return connection.execute(update(runs).where(open_).values(ended)).rowcount > 0


def _ended(outcome: Outcome, failure: Failure, error: str, now: datetime) -> dict[str, Any]:
    return {
        "finished_at": now,
        "outcome": outcome,
        "error_class": failure,
        "error": outbox.make_printable(error),
    }


def _completion(connection: Connection, key: ExportKey, text: str, now: datetime) -> ExportFinished | None:
    if not are_valid_ids(key.project_id, key.export_id):
        return None
    latest = connection.execute(select(func.max(runs.c.attempt)).where(runs.c.export_id == key.export_id)).scalar()
    format_ = connection.execute(select(batch_exports.c.format).where(_is_row(key))).scalar()
    event = outbox.make_completion(
        key.project_id,
        key.export_id,
        latest if isinstance(latest, int) else 0,
        Status.FAILED,
        now,
        table=None,
        format_=format_ if isinstance(format_, str) else "",
    )
    return event.model_copy(update={"error": outbox.make_printable(text)})
