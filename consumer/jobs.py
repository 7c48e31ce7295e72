"""Changes the state of exports: one conditional statement per verb, fenced by the attempt, all or nothing."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from config.errors import Rejected
from config.events import ExportFinished, Status
from config.labels import Failure, Outcome, Verdict
from config.tables import batch_exports, runs
from consumer import outbox
from consumer.models import Claim, Hold, Job, Run
from consumer.store import select_jobs, to_job
from pipeline.types import ExportResult
from runtime.database import reading, writing

MAX_WORDS = 4000
_PROJECT_LOCKS = 0x7762  # the first half of advisory lock keys, so that ours meet nobody else's


class _Overtaken(Exception):
    """A condition of a statement did not hold; raised inside the transaction so that all of it is undone."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What claims are given on: how long a lease lasts, how many a project may hold (0: any), where endings go."""

    lease: timedelta
    project_slots: int
    completions_topic: str


class Jobs:
    """The job store: the only thing that changes `batch_exports` and `waybill_runs`.

    Verbs that take a claim write only while it holds, and say whether it did. Every method may raise Unavailable;
    then nothing is known to be written, and the same call may be made again: an ending that was written is found.
    """

    def __init__(self, engine: Engine, terms: Terms) -> None:
        self.engine = engine
        self._terms = terms

    def find(self, project_id: str, export_id: str) -> Job | None:
        """Find an export of this project with its latest attempt."""
        query = select_jobs().where(batch_exports.c.id == export_id, batch_exports.c.project_id == project_id)
        with reading(self.engine) as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else to_job(row)

    def claim(self, job: Job, worker: str, now: datetime, traceparent: str | None = None) -> Claim | Verdict:
        """Take the job from the state it was seen in, for one lease; OVERTAKEN or CAPPED when that can't be.

        Without a trace of its own, the attempt belongs to that of the attempt before.
        """
        claim = Claim(
            job=job,
            attempt=job.attempt + 1,
            worker=worker,
            claimed_at=now,
            failures=job.failed_so_far,
            traceparent=traceparent or job.traceparent,
        )
        try:
            with writing(self.engine) as connection:
                if self._project_is_full(connection, job.project_id, now):
                    return Verdict.CAPPED
                _move(connection, job, job.status, now, status=Status.PROCESSING, finished_at=None, log=None)
                _close_dead(connection, job, now, Outcome.LOST)
                connection.execute(insert(runs).values(self._first_entry(claim)))
        except (_Overtaken, IntegrityError):
            return Verdict.OVERTAKEN
        return claim

    def beat(self, claim: Claim, *, rows: int, bytes_: int, now: datetime) -> Hold:
        """Extend the lease and note how far the export is (rows read, bytes written so far)."""
        values = {"heartbeat_at": now, "lease_until": now + self._terms.lease, "rows": rows, "bytes": bytes_}
        status_now = select(batch_exports.c.status).where(_row(claim.job))
        extended = update(runs).where(_open(claim)).values(values).returning(status_now.scalar_subquery())
        with writing(self.engine) as connection:
            alive = connection.execute(extended).first()
            status = alive[0] if alive is not None else connection.execute(status_now).scalar()
        if alive is not None and status == Status.PROCESSING:
            return Hold.KEPT
        return Hold.CANCELLED if status == Status.CANCELLED else Hold.LOST

    def complete(self, claim: Claim, result: ExportResult, *, url: str, expires_at: datetime, now: datetime) -> Hold:
        """End as COMPLETED, with the link and the event."""
        row = {"status": Status.COMPLETED, "finished_at": now, "expires_at": expires_at, "url": url, "log": None}
        run = {
            "outcome": Outcome.COMPLETED,
            "rows": result.rows,
            "bytes": result.bytes,
            "object_key": result.key,
            "sha256": result.sha256,
            "truncated": result.truncated,
        }
        event = outbox.ending_of(claim.job, claim.attempt, Status.COMPLETED, now).model_copy(
            update={
                "rows": result.rows,
                "bytes": result.bytes,
                "sha256": result.sha256,
                "truncated": result.truncated,
                "started_at": claim.claimed_at,
                "expires_at": expires_at,
            }
        )
        return self._settle(claim, row, run, event, now)

    def reject(self, claim: Claim, words: str, now: datetime) -> Hold:
        """End as FAILED with the words for the user: the request can't be honoured."""
        return self._fail(claim, Outcome.REJECTED, Failure.REJECTED, _printable(words), _printable(words), now)

    def give_up(self, claim: Claim, failure: Failure, *, words: str, error: str, now: datetime) -> Hold:
        """End as FAILED after the last attempt: `words` for the user, `error` for the person on call."""
        return self._fail(claim, Outcome.FAILED, failure, _printable(words), _printable(error), now)

    def postpone(self, claim: Claim, failure: Failure, *, error: str, until: datetime, now: datetime) -> Hold:
        """Put back in the queue after a failed attempt; the next one is due at `until`."""
        run: dict[str, Any] = {"outcome": Outcome.RETRY, "error_class": failure, "error": _printable(error)}
        run["next_attempt_at"] = until
        return self._settle(claim, {"status": Status.QUEUED}, run, None, now)

    def release(self, claim: Claim, now: datetime) -> Hold:
        """Put back in the queue, because the worker has to stop; the next attempt is due at once."""
        run = {"outcome": Outcome.RELEASED, "next_attempt_at": now}
        return self._settle(claim, {"status": Status.QUEUED}, run, None, now)

    def close_cancelled(self, claim: Claim, now: datetime) -> bool:
        """Close the run of an export that the user cancelled; the row stays as the user left it."""
        values = {"outcome": Outcome.CANCELLED, "finished_at": now}
        with writing(self.engine) as connection:
            return connection.execute(update(runs).where(_open(claim)).values(values)).rowcount == 1

    def close_orphan(self, job: Job, now: datetime) -> bool:
        """Close the run of a dead worker whose export was cancelled or ended meanwhile."""
        try:
            with writing(self.engine) as connection:
                _close_dead(connection, job, now, Outcome.CANCELLED)
        except _Overtaken:
            return False
        return True

    def fail(self, job: Job, failure: Failure, *, words: str, now: datetime) -> bool:
        """End as FAILED from the state it was seen in, without an attempt: `words` for the user; False if overtaken."""
        event = outbox.ending_of(job, job.attempt, Status.FAILED, now).model_copy(update={"error": words})
        try:
            with writing(self.engine) as connection:
                _move(connection, job, job.status, now, status=Status.FAILED, finished_at=now, log=words)
                _close_dead(connection, job, now, Outcome.FAILED, error_class=failure)
                outbox.add(connection, self._terms.completions_topic, event, now, job.traceparent)
        except _Overtaken:
            return False
        return True

    def close_ownerless(self, run: Run, now: datetime) -> bool:
        """Close the run of a dead worker whose export's row is gone."""
        same = and_(runs.c.export_id == run.export_id, runs.c.attempt == run.attempt)
        open_ = and_(same, runs.c.finished_at.is_(None), runs.c.lease_until <= now)
        values = {"outcome": Outcome.CANCELLED, "finished_at": now, "error_class": Failure.LOST}
        with writing(self.engine) as connection:
            return connection.execute(update(runs).where(open_).values(values)).rowcount == 1

    def forget_object(self, run: Run) -> None:
        """Note that the attempt's file is deleted: its run has no key any more."""
        same = and_(runs.c.export_id == run.export_id, runs.c.attempt == run.attempt)
        with writing(self.engine) as connection:
            connection.execute(update(runs).where(same).values(object_key=None))

    def create(self, project_id: str, user_id: str, name: str, query: Any, format_: str, now: datetime) -> Job:
        """Insert a QUEUED row; the export sees data up to `now`."""
        row = {"id": uuid.uuid4().hex, "created_at": now, "updated_at": now, "project_id": project_id}
        row |= {"user_id": user_id, "name": name, "status": Status.QUEUED, "query": query, "format": format_}
        with writing(self.engine) as connection:
            connection.execute(insert(batch_exports).values(row))
        absent = dict.fromkeys(("finished_at", "expires_at", "url", "log", "run"))
        return Job(**row, **absent)  # type: ignore[arg-type] # the table's columns are the record's fields

    def cancel(self, job: Job, now: datetime) -> None:
        """Set to CANCELLED; a worker that has it stops within a heartbeat. Raises Rejected when it has ended."""
        self._decide(job, {Status.QUEUED, Status.PROCESSING}, "cancelled", now, status=Status.CANCELLED)

    def retry(self, job: Job, now: datetime) -> None:
        """Put a FAILED or CANCELLED export back in the queue, due at once; raises Rejected for any other."""
        cleared = dict.fromkeys(("finished_at", "expires_at", "url", "log"))
        self._decide(job, {Status.FAILED, Status.CANCELLED}, "retried", now, status=Status.QUEUED, **cleared)

    def _decide(self, job: Job, states: set[Status], verb: str, now: datetime, **values: Any) -> None:
        refused = f"export {job.id} is {job.status}: only {' or '.join(sorted(states))} can be {verb}"
        if job.status not in states:
            raise Rejected(refused)
        try:
            with writing(self.engine) as connection:
                _move(connection, job, job.status, now, **values)
                past = and_(runs.c.export_id == job.id, runs.c.finished_at.is_not(None))
                connection.execute(update(runs).where(past).values(next_attempt_at=None))
        except _Overtaken:
            raise Rejected(f"export {job.id} changed in the same moment: look at it and try again") from None

    def _fail(self, claim: Claim, outcome: Outcome, failure: Failure, words: str, error: str, now: datetime) -> Hold:
        row = {"status": Status.FAILED, "finished_at": now, "log": words}
        run = {"outcome": outcome, "error_class": failure, "error": error}
        event = outbox.ending_of(claim.job, claim.attempt, Status.FAILED, now).model_copy(
            update={"error": words, "started_at": claim.claimed_at}
        )
        return self._settle(claim, row, run, event, now)

    def _settle(
        self, claim: Claim, row: dict[str, Any], run: dict[str, Any], event: ExportFinished | None, now: datetime
    ) -> Hold:
        try:
            with writing(self.engine) as connection:
                _move(connection, claim.job, Status.PROCESSING, now, **row)
                _expect_one(connection, update(runs).where(_open(claim)).values(finished_at=now, **run))
                if event is not None:
                    outbox.add(connection, self._terms.completions_topic, event, now, claim.traceparent)
        except _Overtaken:
            return self._look(claim, run["outcome"])
        return Hold.KEPT

    def _look(self, claim: Claim, wanted: Outcome) -> Hold:
        outcome = select(runs.c.outcome).where(_attempt(claim))
        with reading(self.engine) as connection:
            if connection.execute(outcome).scalar() == wanted:
                return Hold.KEPT  # written by the same call before, whose answer got lost
            status = connection.execute(select(batch_exports.c.status).where(_row(claim.job))).scalar()
        return Hold.CANCELLED if status == Status.CANCELLED else Hold.LOST

    def _project_is_full(self, connection: Connection, project_id: str, now: datetime) -> bool:
        if self._terms.project_slots == 0:
            return False
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:project))")
            connection.execute(lock, {"kind": _PROJECT_LOCKS, "project": project_id})
        held = select(func.count()).where(
            runs.c.project_id == project_id, runs.c.finished_at.is_(None), runs.c.lease_until > now
        )
        return connection.execute(held).scalar_one() >= self._terms.project_slots

    def _first_entry(self, claim: Claim) -> dict[str, Any]:
        return {
            "export_id": claim.job.id,
            "attempt": claim.attempt,
            "project_id": claim.job.project_id,
            "worker": claim.worker,
            "claimed_at": claim.claimed_at,
            "heartbeat_at": claim.claimed_at,
            "lease_until": claim.claimed_at + self._terms.lease,
            "failures": claim.failures,
            "traceparent": claim.traceparent,
        }


def _printable(words: str) -> str:
    """Keep what a text column takes: no NUL, no lone surrogates, and no novel."""
    return words.replace("\0", "").encode(errors="replace").decode()[:MAX_WORDS]


def _row(job: Job) -> Any:
    return and_(batch_exports.c.id == job.id, batch_exports.c.project_id == job.project_id)


def _attempt(claim: Claim) -> Any:
    return and_(runs.c.export_id == claim.job.id, runs.c.attempt == claim.attempt, runs.c.worker == claim.worker)


def _open(claim: Claim) -> Any:
    return and_(_attempt(claim), runs.c.finished_at.is_(None))


def _expect_one(connection: Connection, statement: Any) -> None:
    if connection.execute(statement).rowcount != 1:
        raise _Overtaken


def _move(connection: Connection, job: Job, seen: str, now: datetime, **values: Any) -> None:
    # The row first, the run second, in every verb: so two of them can't lock each other out.
    where = and_(_row(job), batch_exports.c.status == seen)
    _expect_one(connection, update(batch_exports).where(where).values(updated_at=now, **values))


def _close_dead(connection: Connection, job: Job, now: datetime, outcome: Outcome, **values: Any) -> None:
    """Close the open run that the job was seen with; it must be dead, unless the job was put back in the queue."""
    if job.run is None or job.run.finished_at is not None:
        return
    dead = and_(runs.c.export_id == job.id, runs.c.attempt == job.run.attempt, runs.c.finished_at.is_(None))
    if job.status != Status.QUEUED:
        dead = and_(dead, runs.c.lease_until <= now)
    silent = f"the worker {job.run.worker} fell silent"
    values = {"error_class": Failure.LOST, "error": silent, **values}
    _expect_one(connection, update(runs).where(dead).values(finished_at=now, outcome=outcome, **values))
