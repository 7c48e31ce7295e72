"""Sees to what no event will bring back: dead workers' exports, due retries, rows that nobody rang for."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from config.errors import Rejected, Unavailable
from config.labels import Failure, Outcome
from consumer.attempt import Bench
from consumer.clock import DatabaseClock
from consumer.guards import Policy
from consumer.intake import Closed, Reception
from consumer.labels import OTHER, labels_of
from consumer.leftovers import clear_leftovers
from consumer.models import Job, Run
from consumer.queries import list_due, list_orphans, list_ownerless
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 20


@dataclass(kw_only=True)
class Sweeper:
    """A round of looking after exports; safe in all workers at once.

    `unseen_for` is how long a QUEUED row may wait for its event. `more` says whether the last round found more work
    than there were free slots.
    """

    bench: Bench
    reception: Reception
    clock: DatabaseClock
    policy: Policy
    project_slots: int
    unseen_for: timedelta
    more: bool = False

    async def sweep(self) -> None:
        """Go once around; what is away now is looked after in the next round."""
        try:
            await in_thread(self.clock.compare)
            await in_thread(self._close_orphans)
            if self.policy.enabled:
                await self._take_up_due()
        except Unavailable as error:
            logger.warning("the sweep is put off: %s", error)
        except Closed:
            logger.debug("the sweep ends, the worker is stopping")

    async def _take_up_due(self) -> None:
        room = self.reception.slots.free
        due = await in_thread(self._list_due, room + 1)
        self.more = len(due) > room
        for job in due[:room]:
            if not self.reception.slots.free:
                return
            try:
                await self.reception.take_up(job)
            except Closed:
                raise
            except Unavailable as error:
                # It may be this row alone: one that another transaction holds must not keep the others waiting.
                logger.warning("an export is taken up later: %s", error, extra=job.log_context())
            except Exception:
                logger.exception("an export could not be taken up", extra=job.log_context())

    def _list_due(self, limit: int) -> list[Job]:
        now = self.bench.now()
        return list_due(
            self.bench.jobs.engine,
            now=now,
            unseen_for=self.unseen_for,
            not_before=now - self.policy.stale_after,
            project_slots=self.project_slots,
            limit=limit,
        )

    def _close_orphans(self) -> None:
        """Clear what the dead left of exports that were ended or deleted meanwhile, then close their runs."""
        now = self.bench.now()
        for job in list_orphans(self.bench.jobs.engine, now=now, limit=BATCH):
            try:
                if job.ended_without_file and job.run is not None:
                    self._clear(job, job.run)
            except Unavailable as error:
                logger.warning("leftovers stay for now: %s", error, extra=job.log_context())
                continue
            if self.bench.jobs.close_orphan(job, now):
                logger.warning("closed the run of a dead worker", extra=job.log_context())
                self._count(*labels_of(job))
        for run in list_ownerless(self.bench.jobs.engine, now=now, limit=BATCH):
            if self.bench.jobs.close_ownerless(run, now):
                logger.warning("closed the run of an export that was deleted", extra={"export_id": run.export_id})
                self._count(OTHER, OTHER)

    def _count(self, table: str, format_: str) -> None:
        self.bench.metrics.exports.labels(Outcome.CANCELLED, table, format_).inc()
        self.bench.metrics.attempts_failed.labels(Failure.LOST).inc()

    def _clear(self, job: Job, run: Run) -> None:
        try:
            spec = self.bench.spec_of(job, run.attempt)
        except Rejected:
            return  # no attempt ever had a key to write to
        clear_leftovers(self.bench.storage, spec, run.lease_until)
