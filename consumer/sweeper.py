"""Starts exports for which no event will come: those of dead workers, due retries, and rows without an event."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from config.errors import Rejected, Unavailable
from config.labels import Failure, Outcome
from consumer.attempt import WorkerContext
from consumer.cleanup import delete_orphans
from consumer.guards import GuardPolicy
from consumer.intake import Closed, Intake
from consumer.metrics import OTHER, export_labels
from consumer.models import Job, Run
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
        due = await in_thread(self._list_due, free + 1)
        self.more = len(due) > free
        for job in due[:free]:
            if not self.intake.slots.free:
                return
            try:
                await self.intake.start_without_event(job)
            except Closed:
                raise
            except Unavailable as error:
                # It may be only this row, locked by another transaction: the other exports must not wait for it.
                logger.warning("an export is started later: %s", error, extra=job.log_context())
            except Exception:
                logger.exception("an export could not be started", extra=job.log_context())

    def _list_due(self, limit: int) -> list[Job]:
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
        now = self.context.now()
        for job in list_orphans(self.context.jobs.engine, now=now, limit=BATCH):
            try:
                if job.ended_without_file and job.run is not None:
                    self._delete_orphans(job, job.run)
            except Unavailable as error:
                logger.warning("orphans are deleted later: %s", error, extra=job.log_context())
                continue
            if self.context.jobs.close_orphan(job, now):
                logger.warning("closed the run of a dead worker", extra=job.log_context())
                self._count(*export_labels(job))
        for run in list_ownerless(self.context.jobs.engine, now=now, limit=BATCH):
            if self.context.jobs.close_ownerless(run, now):
                logger.warning("closed the run of an export that was deleted", extra={"export_id": run.export_id})
                self._count(OTHER, OTHER)

    def _count(self, table: str, format_: str) -> None:
        self.context.metrics.exports.labels(Outcome.CANCELLED, table, format_).inc()
        self.context.metrics.attempts_failed.labels(Failure.LOST).inc()

    def _delete_orphans(self, job: Job, run: Run) -> None:
        try:
            spec = self.context.read_spec(job, run.attempt)
        except Rejected:
            return  # without a spec, no attempt had a key to write to
        delete_orphans(self.context.storage, spec, run.lease_until)
