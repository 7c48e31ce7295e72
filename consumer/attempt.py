"""Runs one claimed export from its row to its ending, in the thread of its slot."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from config.errors import Cancelled, Rejected, Unavailable
from config.labels import Failure, Outcome
from config.metrics import Metrics
from consumer.guards import INTERNAL_TEXT
from consumer.jobs import Jobs
from consumer.labels import labels_of
from consumer.leftovers import clear_leftovers
from consumer.models import Claim, Hold, Job
from consumer.specs import spec_of
from pipeline.export import content_type_of
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec
from pipeline.storage import Storage
from pipeline.types import ExportResult, Progress
from runtime.logs import about
from runtime.tracing import Tracer

logger = logging.getLogger(__name__)

UNAVAILABLE_TEXT = "A service that exports need was not available for too long. Please try again later."
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0


class Export(Protocol):
    """The pipeline, as `pipeline.export.export`: makes one object, or raises and leaves nothing behind."""

    def __call__(  # noqa: D102 (the protocol's docstring says it; these are the pipeline's parts)
        self,
        spec: ExportSpec,
        sources: Sources,
        storage: Storage,
        progress: Progress,
        metrics: Metrics,
        *,
        fence: Callable[[], None],
    ) -> ExportResult: ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How exports are written and tried again: settings of the consumer, in its own terms."""

    prefix: str
    row_limit: int | None
    csv_neutralise: bool
    link_lifetime: timedelta
    max_attempts: int
    retry_base: timedelta
    lease: timedelta


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What running an export takes; shared by all slots."""

    jobs: Jobs
    sources: Sources
    storage: Storage
    metrics: Metrics
    rules: Rules
    export: Export
    now: Callable[[], datetime]
    tracer: Tracer = field(default_factory=Tracer)

    def spec_of(self, job: Job, attempt: int) -> ExportSpec:
        """Read what is to be exported; raises Rejected."""
        return spec_of(
            job,
            attempt,
            row_limit=self.rules.row_limit,
            prefix=self.rules.prefix,
            csv_neutralise=self.rules.csv_neutralise,
        )


Ending = Callable[[datetime], Outcome | None]
"""Writes how it ended, at the time given; None when the claim was lost and nothing of ours counts any more."""


def run_claim(claim: Claim, bench: Bench, progress: Progress) -> Outcome | None:
    """Run the export and write its ending; never raises. None when the claim was lost or nothing could be written."""
    with bench.tracer.span("export", claim.traceparent) as span:
        claim = replace(claim, traceparent=span.traceparent)
        with about(claim.log_context()):
            outcome = _run(claim, bench, progress)
        span.note(**claim.job.log_context(), attempt=claim.attempt, outcome=outcome or Outcome.LOST)
        span.note(rows=progress.rows, bytes=progress.bytes)
        for stage, seconds in progress.stages.items():
            span.event(stage, seconds=seconds)
    return outcome


def _run(claim: Claim, bench: Bench, progress: Progress) -> Outcome | None:
    try:
        outcome = _persist(_work(claim, bench, progress), claim, bench)
    except Exception:
        # The lease runs out, and the sweepers see to the row.
        logger.exception("the ending could not be written", extra=claim.log_context())
        return None
    if outcome is not None:
        labels = labels_of(claim.job)
        bench.metrics.exports.labels(outcome, *labels).inc()
        seconds = (bench.now() - claim.claimed_at).total_seconds()
        bench.metrics.duration.labels(outcome).observe(max(seconds, 0))
        logger.info("ended: %s", outcome, extra=claim.log_context() | {"outcome": str(outcome), "seconds": seconds})
    return outcome


def _work(claim: Claim, bench: Bench, progress: Progress) -> Ending:
    try:
        spec = bench.spec_of(claim.job, claim.attempt)
        if claim.attempt > 1:
            # A worker that stalls could complete its upload later, where the store knows no conditions.
            bench.storage.abort_uploads(spec.key, claim.claimed_at)
        fence = partial(_fence, claim, bench, progress)
        result = bench.export(spec, bench.sources, bench.storage, progress, bench.metrics, fence=fence)
        url = bench.storage.sign(result.key, bench.rules.link_lifetime, _filename(result.key), content_type_of(spec))
    except Rejected as error:
        return partial(_reject, claim, bench, str(error))
    except Cancelled:
        if progress.stalled:
            words = f"stalled: for too long no row was read and no byte written, after {progress.rows} rows"
            return partial(_retry, claim, bench, Failure.STALLED, UNAVAILABLE_TEXT, words)
        return partial(_stop, claim, bench, progress)
    except Unavailable as error:
        logger.warning("failed: %s", error, extra=claim.log_context())
        return partial(_retry, claim, bench, Failure.UNAVAILABLE, UNAVAILABLE_TEXT, str(error))
    except Exception as error:
        logger.exception("failed by a bug", extra=claim.log_context())
        return partial(_retry, claim, bench, Failure.BUG, INTERNAL_TEXT, f"{type(error).__name__}: {error}")
    return partial(_complete, claim, bench, result, url)


def _fence(claim: Claim, bench: Bench, progress: Progress) -> None:
    hold = bench.jobs.beat(claim, rows=progress.rows, bytes_=progress.bytes, now=bench.now())
    if hold is not Hold.KEPT:
        raise Cancelled(f"the claim is {hold}")


def _persist(ending: Ending, claim: Claim, bench: Bench) -> Outcome | None:
    deadline = time.monotonic() + bench.rules.lease.total_seconds()
    pause = FIRST_PAUSE
    while True:
        try:
            return ending(bench.now())
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("the ending can't be written yet: %s", error, extra=claim.log_context())
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _complete(claim: Claim, bench: Bench, result: ExportResult, url: str, now: datetime) -> Outcome | None:
    hold = bench.jobs.complete(claim, result, url=url, expires_at=now + bench.rules.link_lifetime, now=now)
    if hold is Hold.KEPT:
        table, format_ = labels_of(claim.job)
        bench.metrics.rows.labels(table, format_).inc(result.rows)
        bench.metrics.bytes.labels("raw", format_).inc(result.raw_bytes)
        bench.metrics.bytes.labels("stored", format_).inc(result.bytes)
        bench.metrics.last_success.set(now.timestamp())
    return _conclude(claim, bench, hold, Outcome.COMPLETED, now)


def _reject(claim: Claim, bench: Bench, words: str, now: datetime) -> Outcome | None:
    _try_to_clear(claim, bench)
    outcome = _conclude(claim, bench, bench.jobs.reject(claim, words, now), Outcome.REJECTED, now)
    return _counted(outcome, Failure.REJECTED, bench)


def _retry(claim: Claim, bench: Bench, failure: Failure, words: str, error: str, now: datetime) -> Outcome | None:
    if claim.failures + 1 >= bench.rules.max_attempts:
        _try_to_clear(claim, bench)
        hold = bench.jobs.give_up(claim, failure, words=words, error=error, now=now)
        return _counted(_conclude(claim, bench, hold, Outcome.FAILED, now), failure, bench)
    until = now + bench.rules.retry_base * 2**claim.failures
    hold = bench.jobs.postpone(claim, failure, error=error, until=until, now=now)
    return _counted(_conclude(claim, bench, hold, Outcome.RETRY, now), failure, bench)


def _counted(outcome: Outcome | None, failure: Failure, bench: Bench) -> Outcome | None:
    if outcome in {Outcome.REJECTED, Outcome.RETRY, Outcome.FAILED}:
        bench.metrics.attempts_failed.labels(failure).inc()
    return outcome


def _stop(claim: Claim, bench: Bench, progress: Progress, now: datetime) -> Outcome | None:
    """Find out why it was stopped: when the claim still holds, it is this worker that has to end."""
    hold = bench.jobs.beat(claim, rows=progress.rows, bytes_=progress.bytes, now=now)
    if hold is Hold.KEPT:
        hold = bench.jobs.release(claim, now)
    return _conclude(claim, bench, hold, Outcome.RELEASED, now)


def _conclude(claim: Claim, bench: Bench, hold: Hold, wanted: Outcome, now: datetime) -> Outcome | None:
    if hold is Hold.KEPT:
        return wanted
    job = bench.jobs.find(claim.job.project_id, claim.job.id)
    if hold is Hold.CANCELLED or job is None:  # none: the application has deleted the row
        # First the file, then the run: while the run is open, a sweeper will finish what this worker can't.
        _clear(claim, bench)
        bench.jobs.close_cancelled(claim, now)
        return Outcome.CANCELLED
    logger.warning("the lease was lost, nothing is changed", extra=claim.log_context())
    if job.ended_without_file:
        # An attempt that runs now replaces the object or clears it.
        _clear(claim, bench)
    return None


def _clear(claim: Claim, bench: Bench) -> None:
    try:
        spec = bench.spec_of(claim.job, claim.attempt)
    except Rejected:
        return  # no attempt ever had a key to write to
    clear_leftovers(bench.storage, spec, claim.claimed_at)


def _try_to_clear(claim: Claim, bench: Bench) -> None:
    """Remove what an earlier attempt left whose worker died; the ending must not wait for a store that is away."""
    if claim.attempt == 1:
        return
    try:
        _clear(claim, bench)
    except Unavailable as error:
        logger.warning("leftovers could not be removed: %s", error, extra=claim.log_context())


def _filename(key: str) -> str:
    return key.rpartition("/")[2]
