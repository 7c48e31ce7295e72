"""Starts exports for which no event will come: those of dead workers, due retries, and rows without an event."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from config.errors import Rejected, Unavailable
from config.labels import Failure, Outcome, Verdict
from consumer.attempt import WorkerContext
from consumer.cleanup import delete_orphans
from consumer.fail_row import close_dead_runs
from consumer.guards import INTERNAL_TEXT, GuardPolicy, Reaction, Refusal
from consumer.intake import BUG_TRIES, Closed, Intake
from consumer.metrics import OTHER, export_labels
from consumer.models import ExportKey, Job, Run, Unreadable
from consumer.queries import list_due, list_orphans, list_ownerless
from runtime.clock import DatabaseClock
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 20


@dataclass(kw_only=True)
class Sweeper:
    """Sweeps the exports; safe in all workers at the same time.

    `unseen_for` is how long a QUEUED row may wait for its event. `more` is whether the last sweep found more exports
    than there were free slots.
    """

    context: WorkerContext
    intake: Intake
    clock: DatabaseClock
    policy: GuardPolicy
    project_slots: int
    unseen_for: timedelta
    more: bool = False
    _bugs: Counter[ExportKey] = field(default_factory=Counter)

    async def sweep(self) -> None:
        """Sweep once; if a dependency is unavailable, the next sweep continues."""
        try:
            await in_thread(self.clock.compare)
            await in_thread(self._close_orphans)
            if self.policy.enabled:
                await self._start_due()
        except Unavailable as error:
            logger.warning("the sweep is postponed: %s", error)
        except Closed:
            logger.debug("the sweep ends because the worker is shutting down")

    async def _start_due(self) -> None:
        free = self.intake.slots.free
        due = await in_thread(self._list_due, free + BATCH)
        self.more = len(due) > free
        for key in due:
            if not self.intake.slots.free:
                return
            try:
                await self.intake.start_without_event(key)
            except Closed:
                raise
            except Unavailable as error:
                # It may be only this row, locked by another transaction: the other exports must not wait for it.
                logger.warning("an export is started later: %s", error, extra=key.log_context())
            except Exception:
                logger.exception("an export could not be started", extra=key.log_context())
                await self._count_bug(key)

    async def _count_bug(self, key: ExportKey) -> None:
        """Fail an export that could not be started because of a bug, after BUG_TRIES sweeps of this worker."""
        self._bugs[key] += 1
        if self._bugs[key] < BUG_TRIES:
            return
        del self._bugs[key]
        reason = f"it could not be started in {BUG_TRIES} sweeps because of a bug"
        refusal = Refusal(Verdict.BUG, Reaction.FAIL, reason, INTERNAL_TEXT, Failure.BUG)
        try:
            await in_thread(self.intake.claimer.fail, key, refusal, Failure.BUG)
        except Unavailable as error:
            logger.warning("an export is failed later: %s", error, extra=key.log_context())

    def _list_due(self, limit: int) -> list[ExportKey]:
        now = self.context.now()
        return list_due(
            self.context.jobs.engine,
            now=now,
            unseen_for=self.unseen_for,
            not_before=now - self.policy.stale_after,
            project_slots=self.project_slots,
            limit=limit,
        )

    def _close_orphans(self) -> None:
        """Delete what dead workers left of exports that have ended or were deleted, then close their runs."""
        now, engine = self.context.now(), self.context.jobs.engine
        for key in list_orphans(engine, now=now, limit=BATCH):
            try:
                job = self.context.jobs.find(key.project_id, key.export_id)
                if job is not None:
                    self._close_orphan(job, now)
            except Unavailable as error:
                logger.warning("orphaned uploads and files are deleted later: %s", error, extra=key.log_context())
            except Unreadable:
                self._close_runs(key, "closed the run of an export that can't be read", now)
        for key in list_ownerless(engine, now=now, limit=BATCH):
            self._close_runs(key, "closed the run of an export that was deleted", now)

    def _close_orphan(self, job: Job, now: datetime) -> None:
        if job.ended_without_file and job.run is not None:
            self._delete_orphans(job, job.run, now)
        if self.context.jobs.close_orphan(job, now):
            logger.warning("closed the run of a dead worker", extra=job.log_context())
            self._count(*export_labels(job))

    def _close_runs(self, key: ExportKey, text: str, now: datetime) -> None:
        if close_dead_runs(self.context.jobs.engine, key, now):
            logger.warning(text, extra=key.log_context())
            self._count(OTHER, OTHER)

    def _count(self, table: str, format_: str) -> None:
        self.context.metrics.exports.labels(Outcome.CANCELLED, table, format_).inc()
        self.context.metrics.attempts_failed.labels(Failure.LOST).inc()

    def _delete_orphans(self, job: Job, run: Run, now: datetime) -> None:
        try:
            spec = self.context.read_spec(job, run.attempt)
        except Rejected:
            return  # without a spec, no attempt had a key to write to
        delete_orphans(self.context.storage, spec, min(run.lease_until, now))
