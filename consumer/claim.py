"""Brings a request to a claim or a refusal: find the row, ask the guards, claim; fail the row if a guard says so."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from config.labels import Failure, Outcome, Verdict
from config.metrics import Metrics
from consumer.fail_row import fail_unreadable
from consumer.guards import GuardPolicy, Reaction, Refusal, enabled, exists, judge, refuse_unreadable
from consumer.job_store import Jobs
from consumer.metrics import OTHER, export_labels
from consumer.models import LATE_CREATION, Claim, ExportKey, Job, Unreadable

logger = logging.getLogger(__name__)

_REASONS = {
    Verdict.CAPPED: "the project already runs as many exports as it may",
    Verdict.OVERTAKEN: "another worker changed the export first",
}
_OVERTAKEN = Refusal(Verdict.OVERTAKEN, Reaction.SKIP, _REASONS[Verdict.OVERTAKEN])


@dataclass(frozen=True, kw_only=True)
class Claimer:
    """Claims exports for one worker; its methods block, so call them in threads. `now` gives the time (aware, UTC)."""

    jobs: Jobs
    policy: GuardPolicy
    worker: str
    metrics: Metrics
    now: Callable[[], datetime]

    def check(self, key: ExportKey) -> Refusal | None:
        """Return why the export may not start now, None if it may; changes nothing. Raises Unavailable."""
        job = self._find(key)
        return job if isinstance(job, Refusal) else judge(job, self.policy, self.now())

    def claim(self, key: ExportKey, traceparent: str | None = None) -> Claim | Refusal:
        """Claim the export, or refuse it; fails the row if the refusal asks for that. Raises Unavailable."""
        now = self.now()
        job = self._find(key)
        if isinstance(job, Refusal):
            return job if job.failure is None else self.fail(key, job, job.failure)
        if (refusal := judge(job, self.policy, now)) is not None:
            return refusal if refusal.failure is None else self._fail(job, refusal, refusal.failure, now)
        claim = self.jobs.claim(job, self.worker, now, traceparent)
        if isinstance(claim, Verdict):
            return Refusal(claim, Reaction.SKIP, _REASONS[claim])
        self._record(claim)
        return claim

    def fail(self, key: ExportKey, refusal: Refusal, failure: Failure) -> Refusal:
        """Fail the row without reading it, and return the refusal. Raises Unavailable."""
        topic, now = self.jobs.completions_topic, self.now()
        if not fail_unreadable(self.jobs.engine, topic, key, failure, text=refusal.text, now=now):
            return _OVERTAKEN
        logger.error("failed an export: %s", refusal.reason, extra=key.log_context())
        return self._count_failed(refusal, failure, OTHER, OTHER)

    def _find(self, key: ExportKey) -> Job | Refusal:
        if (refusal := enabled(self.policy)) is not None:
            return refusal
        try:
            job = self.jobs.find(key.project_id, key.export_id)
        except Unreadable as error:
            return refuse_unreadable(error)
        if job is None and key.row_id is not None:
            return refuse_unreadable(Unreadable("its id or its project's is not valid text"))
        return exists(job)

    def _fail(self, job: Job, refusal: Refusal, failure: Failure, now: datetime) -> Refusal:
        if not self.jobs.fail(job, failure, text=refusal.text, now=now):
            return _OVERTAKEN
        return self._count_failed(refusal, failure, *export_labels(job))

    def _count_failed(self, refusal: Refusal, failure: Failure, table: str, format_: str) -> Refusal:
        self.metrics.exports.labels(Outcome.FAILED, table, format_).inc()
        self.metrics.attempts_failed.labels(failure).inc()
        return refusal

    def _record(self, claim: Claim) -> None:
        logger.info("claimed the export", extra=claim.log_context())
        self.metrics.exports_started.labels(*export_labels(claim.job)).inc()
        if claim.job.created_at > claim.claimed_at + LATE_CREATION:
            text = "the export has a creation time in the future: its producer may write local time instead of UTC"
            logger.warning(text, extra=claim.log_context() | {"created_at": claim.job.created_at.isoformat()})
        if claim.attempt == 1:
            self.metrics.queue_wait.observe(max((claim.claimed_at - claim.job.created_at).total_seconds(), 0))
        if claim.resumed and claim.job.run is not None:
            died = {"worker": claim.job.run.worker}
            logger.warning("took over the export of a worker that died", extra=claim.log_context() | died)
            self.metrics.exports.labels(Outcome.LOST, *export_labels(claim.job)).inc()
            self.metrics.attempts_failed.labels(Failure.LOST).inc()
