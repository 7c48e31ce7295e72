"""Changes the state of exports: one method per change, one transaction each, fenced by the attempt."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError

from config.errors import Rejected
from config.events import ExportFinished, Status, are_valid_ids
from config.labels import Failure, Outcome, Verdict
from config.tables import batch_exports, runs
from consumer import outbox
from consumer.models import Claim, Job, LeaseState, NewExport, Run
from consumer.outbox import make_printable
from consumer.queries import is_dead, is_live
from consumer.rows import select_jobs, to_job
from pipeline.ignored_keys import describe_names
from pipeline.types import ExportResult
from runtime.database import reading, writing

_PROJECT_LOCKS = 0x7762  # the first half of our advisory lock keys, so that they differ from Langfuse's


class _Overtaken(Exception):
    """The condition of a statement did not hold; raised inside the transaction, to roll it back."""


@dataclass(frozen=True, kw_only=True)
class ClaimPolicy:
    """How long a lease lasts, how many slots a project may use (0: any), and the topic of completion events."""

    lease: timedelta
    project_slots: int
    completions_topic: str


class Jobs:
    """The job store: the only code that changes `batch_exports` and `waybill_runs`.

    Methods that take a claim write only while its lease is kept, and return the lease's state. Every method may raise
    Unavailable. The change may have been written then: repeat the call, it recognizes an outcome that it wrote.
    """

    def __init__(self, engine: Engine, policy: ClaimPolicy) -> None:
        self.engine = engine
        self.completions_topic = policy.completions_topic
        self._policy = policy

    def find(self, project_id: str, export_id: str) -> Job | None:
        """Find an export of this project with its latest attempt; raises Unreadable if its row can't be read."""
        query = select_jobs().where(batch_exports.c.id == export_id, batch_exports.c.project_id == project_id)
        with reading(self.engine) as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else to_job(row)

    def claim(self, job: Job, worker: str, now: datetime, traceparent: str | None = None) -> Claim | Verdict:
        """Start an attempt with a lease, unless the job has changed since it was read (OVERTAKEN) or is CAPPED.

        Without a trace of its own, the attempt continues the trace of the attempt before.
        """
        claim = Claim(
            job=job,
            attempt=max(job.attempt, 0) + 1,
            worker=worker,
            claimed_at=now,
            failures=job.failed_so_far,
            traceparent=traceparent or job.traceparent,
        )
        try:
            with writing(self.engine) as connection:
                if self._project_is_full(connection, job.project_id, now):
                    return Verdict.CAPPED
                _update_row(connection, job, job.status, now, status=Status.PROCESSING, finished_at=None, log=None)
                _close_dead_run(connection, job, now, Outcome.LOST)
                connection.execute(insert(runs).values(self._new_run(claim)))
        except (_Overtaken, IntegrityError):
            return Verdict.OVERTAKEN
        return claim

    def extend_lease(
        self, claim: Claim, *, rows: int, bytes_: int, now: datetime, stage: str | None = None
    ) -> LeaseState:
        """Extend the lease and record the progress: rows read and bytes written so far, and the busiest stage."""
        values: dict[str, Any] = {"heartbeat_at": now, "lease_until": now + self._policy.lease}
        values |= {"rows": rows, "bytes": bytes_, "stage": stage}
        status_now = select(batch_exports.c.status).where(_is_row_of(claim.job))
        extended = update(runs).where(_is_open_run_of(claim)).values(values).returning(status_now.scalar_subquery())
        with writing(self.engine) as connection:
            alive = connection.execute(extended).first()
            status = alive[0] if alive is not None else connection.execute(status_now).scalar()
        if alive is not None and status == Status.PROCESSING:
            return LeaseState.KEPT
        return LeaseState.CANCELLED if status == Status.CANCELLED else LeaseState.LOST

    def complete(
        self, claim: Claim, result: ExportResult, *, url: str, expires_at: datetime, now: datetime
    ) -> LeaseState:
        """Set to COMPLETED, with the link and the completion event."""
        row = {"status": Status.COMPLETED, "finished_at": now, "expires_at": expires_at, "url": url, "log": None}
        run = {
            "outcome": Outcome.COMPLETED,
            "object_key": result.key,
            "rows": result.rows,
            "bytes": result.bytes,
            "sha256": result.sha256,
            "truncated": result.truncated,
            "ignored": describe_names(result.ignored),
        }
        event = outbox.completed_event(claim, result, expires_at=expires_at, now=now)
        return self._settle(claim, row, run, event, now)

    def reject(self, claim: Claim, text: str, now: datetime) -> LeaseState:
        """Set to FAILED because the request can't be fulfilled; `text` is for the user."""
        return self._fail(claim, Outcome.REJECTED, Failure.REJECTED, text, text, now)

    def give_up(self, claim: Claim, failure: Failure, *, text: str, error: str, now: datetime) -> LeaseState:
        """Set to FAILED after the last attempt; `text` is for the user, `error` for operators."""
        return self._fail(claim, Outcome.FAILED, failure, text, error, now)

    def postpone(self, claim: Claim, failure: Failure, *, error: str, until: datetime, now: datetime) -> LeaseState:
        """Set to QUEUED after a failed attempt; the next one is due at `until`."""
        run: dict[str, Any] = {"outcome": Outcome.RETRY, "error_class": failure, "error": make_printable(error)}
        run["next_attempt_at"] = until
        return self._settle(claim, {"status": Status.QUEUED}, run, None, now)

    def release(self, claim: Claim, now: datetime) -> LeaseState:
        """Set to QUEUED because the worker is shutting down; the next attempt is due immediately."""
        run = {"outcome": Outcome.RELEASED, "next_attempt_at": now}
        return self._settle(claim, {"status": Status.QUEUED}, run, None, now)

    def close_cancelled(self, claim: Claim, now: datetime) -> bool:
        """Close the run of an export that the user cancelled; its row is not changed."""
        values = {"outcome": Outcome.CANCELLED, "finished_at": now}
        with writing(self.engine) as connection:
            return connection.execute(update(runs).where(_is_open_run_of(claim)).values(values)).rowcount == 1

    def close_orphan(self, job: Job, now: datetime) -> bool:
        """Close the run of a dead worker whose export was cancelled or has ended; False if overtaken."""
        try:
            with writing(self.engine) as connection:
                _close_dead_run(connection, job, now, Outcome.CANCELLED)
        except _Overtaken:
            return False
        return True

    def fail(self, job: Job, failure: Failure, *, text: str, now: datetime) -> bool:
        """Set to FAILED without an attempt; `text` is for the user. False if overtaken.

        No event is written for an export whose ids are not valid in one.
        """
        event = None
        if are_valid_ids(job.project_id, job.id):
            event = outbox.completion_event(job, job.attempt, Status.FAILED, now).model_copy(update={"error": text})
        try:
            with writing(self.engine) as connection:
                _update_row(connection, job, job.status, now, status=Status.FAILED, finished_at=now, log=text)
                _close_dead_run(connection, job, now, Outcome.FAILED, error_class=failure)
                if event is not None:
                    outbox.add(connection, self.completions_topic, event, now, job.traceparent)
        except _Overtaken:
            return False
        return True

    def forget_object(self, run: Run) -> None:
        """Clear the object key of the attempt's run, because the file was deleted."""
        same = and_(runs.c.export_id == run.export_id, runs.c.attempt == run.attempt)
        with writing(self.engine) as connection:
            connection.execute(update(runs).where(same).values(object_key=None))

    def prune(self, before: datetime, *, with_file: bool, limit: int) -> bool:
        """Delete up to `limit` runs that ended earlier, also those that have a file if asked to.

        Returns whether there may be more.
        """
        old = select(runs.c.export_id, runs.c.attempt).where(runs.c.finished_at < before).limit(limit)
        if not with_file:
            old = old.where(runs.c.object_key.is_(None))
        with writing(self.engine) as connection:
            ended = tuple_(runs.c.export_id, runs.c.attempt).in_(old)
            return connection.execute(delete(runs).where(ended)).rowcount == limit

    def create(self, new: NewExport, now: datetime) -> Job:
        """Insert a QUEUED row; the export contains the data up to `now`. Raises IntegrityError if its id is taken."""
        row = vars(new) | {"created_at": now, "updated_at": now, "status": Status.QUEUED}
        with writing(self.engine) as connection:
            connection.execute(insert(batch_exports).values(row))
        absent = dict.fromkeys(("finished_at", "expires_at", "url", "log", "run"))
        return Job(**row, **absent)  # type: ignore[arg-type] # the table's columns are the record's fields

    def cancel(self, job: Job, now: datetime) -> None:
        """Set to CANCELLED; a worker that runs it stops within a heartbeat. Raises Rejected when it has ended."""
        self._change(job, {Status.QUEUED, Status.PROCESSING}, "cancelled", now, status=Status.CANCELLED)

    def retry(self, job: Job, now: datetime) -> None:
        """Set a FAILED or CANCELLED export to QUEUED, due immediately; raises Rejected for any other."""
        cleared = dict.fromkeys(("finished_at", "expires_at", "url", "log"))
        self._change(job, {Status.FAILED, Status.CANCELLED}, "retried", now, status=Status.QUEUED, **cleared)

    def _change(self, job: Job, states: set[Status], verb: str, now: datetime, **values: Any) -> None:
        refused = f"Export {job.id} is {job.status}: only {' or '.join(sorted(states))} can be {verb}."
        if job.status not in states:
            raise Rejected(refused)
        try:
            with writing(self.engine) as connection:
                _update_row(connection, job, job.status, now, **values)
                past = and_(runs.c.export_id == job.id, runs.c.finished_at.is_not(None))
                connection.execute(update(runs).where(past).values(next_attempt_at=None))
        except _Overtaken:
            raise Rejected(f"Export {job.id} changed at the same time: check its status and try again.") from None

    def _fail(
        self, claim: Claim, outcome: Outcome, failure: Failure, text: str, error: str, now: datetime
    ) -> LeaseState:
        text = make_printable(text)
        row = {"status": Status.FAILED, "finished_at": now, "log": text}
        run = {"outcome": outcome, "error_class": failure, "error": make_printable(error)}
        event = outbox.completion_event(claim.job, claim.attempt, Status.FAILED, now).model_copy(
            update={"error": text, "started_at": claim.claimed_at}
        )
        return self._settle(claim, row, run, event, now)

    def _settle(
        self, claim: Claim, row: dict[str, Any], run: dict[str, Any], event: ExportFinished | None, now: datetime
    ) -> LeaseState:
        try:
            with writing(self.engine) as connection:
                _update_row(connection, claim.job, Status.PROCESSING, now, **row)
                _expect_one(connection, update(runs).where(_is_open_run_of(claim)).values(finished_at=now, **run))
                if event is not None:
                    outbox.add(connection, self.completions_topic, event, now, claim.traceparent)
        except _Overtaken:
            return self._read_lease_state(claim, run["outcome"])
        return LeaseState.KEPT

    def _read_lease_state(self, claim: Claim, wanted: Outcome) -> LeaseState:
        outcome = select(runs.c.outcome).where(_is_run_of(claim))
        with reading(self.engine) as connection:
            if connection.execute(outcome).scalar() == wanted:
                return LeaseState.KEPT  # an earlier call wrote it, but its response was lost
            status = connection.execute(select(batch_exports.c.status).where(_is_row_of(claim.job))).scalar()
        return LeaseState.CANCELLED if status == Status.CANCELLED else LeaseState.LOST

    def _project_is_full(self, connection: Connection, project_id: str, now: datetime) -> bool:
        if self._policy.project_slots == 0:
            return False
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:project))")
            connection.execute(lock, {"kind": _PROJECT_LOCKS, "project": project_id})
        held = select(func.count()).where(runs.c.project_id == project_id, is_live(runs, now))
        return connection.execute(held).scalar_one() >= self._policy.project_slots

    def _new_run(self, claim: Claim) -> dict[str, Any]:
        return {
            "export_id": claim.job.id,
            "attempt": claim.attempt,
            "project_id": claim.job.project_id,
            "worker": claim.worker,
            "claimed_at": claim.claimed_at,
            "heartbeat_at": claim.claimed_at,
            "lease_until": claim.claimed_at + self._policy.lease,
            "failures": claim.failures,
            "traceparent": claim.traceparent,
        }


def _is_row_of(job: Job) -> Any:
    return and_(batch_exports.c.id == job.id, batch_exports.c.project_id == job.project_id)


def _is_run_of(claim: Claim) -> Any:
    return and_(runs.c.export_id == claim.job.id, runs.c.attempt == claim.attempt, runs.c.worker == claim.worker)


def _is_open_run_of(claim: Claim) -> Any:
    return and_(_is_run_of(claim), runs.c.finished_at.is_(None))


def _expect_one(connection: Connection, statement: Any) -> None:
    if connection.execute(statement).rowcount != 1:
        raise _Overtaken


def _update_row(connection: Connection, job: Job, seen: str, now: datetime, **values: Any) -> None:
    # Every change updates the row first and the run second, so that two changes can't deadlock.
    where = and_(_is_row_of(job), batch_exports.c.status == seen)
    _expect_one(connection, update(batch_exports).where(where).values(updated_at=now, **values))


def _close_dead_run(connection: Connection, job: Job, now: datetime, outcome: Outcome, **values: Any) -> None:
    """Close the open run that the job was read with; its lease must have expired, unless the job is QUEUED again."""
    if job.run is None or job.run.finished_at is not None:
        return
    dead = and_(runs.c.export_id == job.id, runs.c.attempt == job.run.attempt, runs.c.finished_at.is_(None))
    if job.status != Status.QUEUED:
        dead = and_(dead, is_dead(runs, now))
    error = f"worker {job.run.worker} stopped sending heartbeats"
    values = {"error_class": Failure.LOST, "error": error, **values}
    _expect_one(connection, update(runs).where(dead).values(finished_at=now, outcome=outcome, **values))
