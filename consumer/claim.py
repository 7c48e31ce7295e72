"""Brings a request to a claim or a refusal: find, guards, claim; what a guard fails is settled here."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from config.labels import Failure, Outcome, Verdict
from config.metrics import Metrics
from consumer.guards import Policy, Reaction, Refusal, judge
from consumer.jobs import Jobs
from consumer.labels import labels_of
from consumer.models import Claim, Job

logger = logging.getLogger(__name__)

_REASONS = {
    Verdict.CAPPED: "its project has as many exports running as it may",
    Verdict.OVERTAKEN: "somebody else was quicker",
}


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What deciding takes: the job store, the policy, this worker's name, the metrics, and the time (aware, UTC)."""

    jobs: Jobs
    policy: Policy
    worker: str
    metrics: Metrics
    now: Callable[[], datetime]

    def look(self, project_id: str, export_id: str) -> Refusal | None:
        """Say why the export may not start now, without changing anything; raises Unavailable."""
        job = self.jobs.find(project_id, export_id) if self.policy.enabled else None
        return judge(job, self.policy, self.now())

    def admit(self, project_id: str, export_id: str, traceparent: str | None = None) -> Claim | Refusal:
        """Claim the export, or refuse it and do to the row what the refusal asks for; raises Unavailable."""
        now = self.now()
        job = self.jobs.find(project_id, export_id) if self.policy.enabled else None
        refusal = judge(job, self.policy, now)
        if refusal is not None:
            return refusal if job is None else self._refuse(job, refusal, now)
        assert job is not None  # noqa: S101 (the guard `exists` has seen to it)
        claim = self.jobs.claim(job, self.worker, now, traceparent)
        if isinstance(claim, Verdict):
            return Refusal(claim, Reaction.SKIP, _REASONS[claim])
        self._note(claim)
        return claim

    def _refuse(self, job: Job, refusal: Refusal, now: datetime) -> Refusal:
        if refusal.reaction is not Reaction.FAIL or refusal.failure is None:
            return refusal
        if not self.jobs.fail(job, refusal.failure, words=refusal.text, now=now):
            return Refusal(Verdict.OVERTAKEN, Reaction.SKIP, _REASONS[Verdict.OVERTAKEN])
        self.metrics.exports.labels(Outcome.FAILED, *labels_of(job)).inc()
        self.metrics.attempts_failed.labels(refusal.failure).inc()
        return refusal

    def _note(self, claim: Claim) -> None:
        logger.info("claimed", extra=claim.log_context())
        self.metrics.exports_started.labels(*labels_of(claim.job)).inc()
        if claim.attempt == 1:
            self.metrics.queue_wait.observe(max((claim.claimed_at - claim.job.created_at).total_seconds(), 0))
        if claim.job.run is not None and claim.job.run.finished_at is None:
            logger.warning("the worker that had it died", extra=claim.log_context() | {"worker": claim.job.run.worker})
            self.metrics.exports.labels(Outcome.LOST, *labels_of(claim.job)).inc()
            self.metrics.attempts_failed.labels(Failure.LOST).inc()


def verdict_on(answer: Claim | Refusal) -> Verdict:
    """Name what became of a request, for the counter."""
    if isinstance(answer, Refusal):
        return answer.verdict
    dead = answer.job.run is not None and answer.job.run.finished_at is None
    return Verdict.RESUMED if dead else Verdict.ACCEPTED
