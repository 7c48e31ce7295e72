"""Runs one claimed export from its row to its outcome, in the thread of its slot."""

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
from consumer.cleanup import abort_earlier_uploads, delete_former_object, delete_orphans
from consumer.fail_row import fail_claimed
from consumer.guards import INTERNAL_TEXT
from consumer.job_store import Jobs
from consumer.metrics import count_outcome, export_labels
from consumer.models import Claim, Job, LeaseState, Unreadable
from consumer.queries import find_most_bytes
from consumer.row_url import LinkPolicy, make_url
from pipeline.progress import Progress
from pipeline.read.connections import Sources
from pipeline.spec import ExportSpec, read_spec
from pipeline.storage import Storage
from pipeline.types import ExportResult, OutputOptions
from runtime.logs import add_log_fields
from runtime.retry import Backoff
from runtime.tracing import Tracer

logger = logging.getLogger(__name__)

UNAVAILABLE_TEXT = "A required service was unavailable. Please try again later."
BACKOFF = Backoff(first=0.5, longest=5.0)
"""Between tries to write an outcome."""


class Export(Protocol):
    """The pipeline, as `pipeline.export.export`: writes one object, or raises and leaves nothing behind."""

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
class ExportPolicy:
    """How exports are written and retried; `backoff` gives the delays between attempts."""

    output: OutputOptions
    links: LinkPolicy
    max_attempts: int
    backoff: Backoff
    lease: timedelta


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What all slots of a worker share to run exports; `now` gives the time (aware, UTC)."""

    jobs: Jobs
    sources: Sources
    storage: Storage
    metrics: Metrics
    policy: ExportPolicy
    export: Export
    now: Callable[[], datetime]
    tracer: Tracer = field(default_factory=Tracer)

    def read_spec(self, job: Job, attempt: int) -> ExportSpec:
        """Read what to export, by the worker's policy; raises Rejected."""
        return read_job_spec(job, attempt, self.policy.output)

    def extend_lease(self, claim: Claim, progress: Progress) -> LeaseState:
        """Extend the lease of a claim and record its progress; raises Unavailable."""
        stage = progress.read_busiest_stage()
        return self.jobs.extend_lease(claim, rows=progress.rows, bytes_=progress.bytes, now=self.now(), stage=stage)


def read_job_spec(job: Job, attempt: int, output: OutputOptions) -> ExportSpec:
    """Read what to export from the stored row of a job; `output` is for the file. Raises Rejected."""
    return read_spec(
        project_id=job.project_id,
        export_id=job.id,
        attempt=attempt,
        created_at=job.created_at,
        query=job.query,
        format=job.format,
        output=output,
    )


Settle = Callable[[datetime], Outcome | None]
"""Writes the outcome of an attempt at the given time; None when the claim was lost, so that nothing is written."""


def run_attempt(claim: Claim, context: WorkerContext, progress: Progress) -> Outcome | None:
    """Run the export and write its outcome; never raises. None when the claim was lost or nothing could be written."""
    with context.tracer.span("export", claim.traceparent) as span:
        claim = replace(claim, traceparent=span.traceparent)
        with add_log_fields(claim.log_context()):
            outcome = _run(claim, context, progress)
        span.note(**claim.job.log_context(), attempt=claim.attempt, outcome=outcome or Outcome.LOST)
        span.note(rows=progress.rows, bytes=progress.bytes)
        for stage, seconds in progress.stages.items():
            span.event(stage, seconds=seconds)
    return outcome


def _run(claim: Claim, context: WorkerContext, progress: Progress) -> Outcome | None:
    try:
        outcome = _store(_export(claim, context, progress), claim, context)
    except Exception:
        # The lease expires, and the sweeper starts the next attempt.
        logger.exception("the outcome could not be written", extra=claim.log_context())
        return None
    if outcome is not None:
        seconds = (context.now() - claim.claimed_at).total_seconds()
        count_outcome(context.metrics, claim.job, outcome, seconds)
        table, format_ = export_labels(claim.job)
        extra = claim.log_context() | {"outcome": str(outcome), "seconds": seconds, "table": table, "format": format_}
        logger.info("the attempt ended: %s", outcome, extra=extra | {"rows": progress.rows, "bytes": progress.bytes})
    return outcome


def _store(settle: Settle, claim: Claim, context: WorkerContext) -> Outcome | None:
    """Write the outcome; if that fails because of a bug, retry the export, and fail it after the last attempt."""
    try:
        return _write_outcome(settle, claim, context)
    except Unavailable:
        raise
    except Exception as error:
        logger.exception("the outcome can't be stored because of a bug", extra=claim.log_context())
        text = f"the outcome can't be stored: {type(error).__name__}: {error}"
    if claim.failures + 1 < context.policy.max_attempts:
        return _write_outcome(partial(_retry, claim, context, Failure.BUG, INTERNAL_TEXT, text), claim, context)
    return _write_outcome(partial(_fail_simply, claim, context, text), claim, context)


def _fail_simply(claim: Claim, context: WorkerContext, error: str, now: datetime) -> Outcome | None:
    """Set to FAILED without an event, and delete the object."""
    engine = context.jobs.engine
    if not fail_claimed(engine, claim, Failure.BUG, text=INTERNAL_TEXT, error=error, now=now):
        return _conclude(claim, context, LeaseState.LOST, Outcome.FAILED, now)
    try:
        _clear(claim, context)
    except Unavailable as unavailable:
        logger.warning("orphaned uploads and files could not be deleted: %s", unavailable, extra=claim.log_context())
    return _count_failure(Outcome.FAILED, Failure.BUG, context)


def _export(claim: Claim, context: WorkerContext, progress: Progress) -> Settle:
    try:
        spec = context.read_spec(claim.job, claim.attempt)
        if claim.attempt > 1:
            # In stores without conditional writes, a stalled worker could still complete its upload later.
            abort_earlier_uploads(context.storage, spec, claim.claimed_at)
            spec = replace(spec, expected_bytes=find_most_bytes(context.jobs.engine, claim.job.id))
        fence = partial(_check_lease, claim, context, progress)
        result = context.export(spec, context.sources, context.storage, progress, context.metrics, fence=fence)
        url = make_url(spec, result.key, context.storage, context.policy.links)
    except Rejected as error:
        return partial(_reject, claim, context, str(error))
    except Cancelled:
        if progress.stalled:
            error_text = f"stalled: for too long no row was read and no byte was written, after {progress.rows} rows"
            return partial(_retry, claim, context, Failure.STALLED, UNAVAILABLE_TEXT, error_text)
        return partial(_stop, claim, context, progress)
    except Unavailable as error:
        logger.warning("the attempt failed: %s", error, extra=claim.log_context())
        return partial(_retry, claim, context, Failure.UNAVAILABLE, error.advice or UNAVAILABLE_TEXT, str(error))
    except Exception as error:
        logger.exception("the attempt failed with an unexpected error", extra=claim.log_context())
        return partial(_retry, claim, context, Failure.BUG, INTERNAL_TEXT, f"{type(error).__name__}: {error}")
    return partial(_complete, claim, context, result, url)


def _check_lease(claim: Claim, context: WorkerContext, progress: Progress) -> None:
    if (state := context.extend_lease(claim, progress)) is not LeaseState.KEPT:
        raise Cancelled(f"the lease is {state}")


def _write_outcome(settle: Settle, claim: Claim, context: WorkerContext) -> Outcome | None:
    """Write the outcome; retry for the time of a lease while the database or the store is unavailable."""
    deadline, delays = time.monotonic() + context.policy.lease.total_seconds(), BACKOFF.delays()
    while True:
        try:
            return settle(context.now())
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("the outcome can't be written yet: %s", error, extra=claim.log_context())
        time.sleep(next(delays))


def _complete(claim: Claim, context: WorkerContext, result: ExportResult, url: str, now: datetime) -> Outcome | None:
    expires_at = now + context.policy.links.lifetime
    state = context.jobs.complete(claim, result, url=url, expires_at=expires_at, now=now)
    if state is LeaseState.KEPT:
        table, format_ = export_labels(claim.job)
        context.metrics.rows.labels(table, format_).inc(result.rows)
        context.metrics.bytes.labels("raw", format_).inc(result.raw_bytes)
        context.metrics.bytes.labels("stored", format_).inc(result.bytes)
        if result.ignored:
            context.metrics.unknown_keys.labels(table).inc()
        context.metrics.last_success.set(now.timestamp())
        _try_to_delete_former(claim, context)
    return _conclude(claim, context, state, Outcome.COMPLETED, now)


def _reject(claim: Claim, context: WorkerContext, text: str, now: datetime) -> Outcome | None:
    _try_to_clear(claim, context)
    state = context.jobs.reject(claim, text, now)
    return _count_failure(_conclude(claim, context, state, Outcome.REJECTED, now), Failure.REJECTED, context)


def _retry(
    claim: Claim, context: WorkerContext, failure: Failure, text: str, error: str, now: datetime
) -> Outcome | None:
    failures = claim.failures + 1
    if failures >= context.policy.max_attempts:
        _try_to_clear(claim, context)
        state, wanted = context.jobs.give_up(claim, failure, text=text, error=error, now=now), Outcome.FAILED
    else:
        until = now + timedelta(seconds=context.policy.backoff.delay(failures))
        state, wanted = context.jobs.postpone(claim, failure, error=error, until=until, now=now), Outcome.RETRY
    return _count_failure(_conclude(claim, context, state, wanted, now), failure, context)


def _count_failure(outcome: Outcome | None, failure: Failure, context: WorkerContext) -> Outcome | None:
    if outcome in {Outcome.REJECTED, Outcome.RETRY, Outcome.FAILED}:
        context.metrics.attempts_failed.labels(failure).inc()
    return outcome


def _stop(claim: Claim, context: WorkerContext, progress: Progress, now: datetime) -> Outcome | None:
    """Find out why the export was stopped: if the lease is still kept, the worker is shutting down."""
    state = context.extend_lease(claim, progress)
    if state is LeaseState.KEPT:
        state = context.jobs.release(claim, now)
    return _conclude(claim, context, state, Outcome.RELEASED, now)


def _conclude(
    claim: Claim, context: WorkerContext, state: LeaseState, wanted: Outcome, now: datetime
) -> Outcome | None:
    if state is LeaseState.KEPT:
        return wanted
    try:
        job = context.jobs.find(claim.job.project_id, claim.job.id)
    except Unreadable:
        job = claim.job
    if state is LeaseState.CANCELLED or job is None:  # None: the row was deleted
        # The files first, then the run: while the run is open, a sweeper completes what this worker can't.
        _clear(claim, context)
        context.jobs.close_cancelled(claim, now)
        return Outcome.CANCELLED
    logger.warning("the lease was lost, so nothing is written", extra=claim.log_context())
    if job.ended_without_file:
        # If another attempt is running, it replaces the object or deletes it.
        _clear(claim, context)
    return None


def _clear(claim: Claim, context: WorkerContext) -> None:
    try:
        spec = context.read_spec(claim.job, claim.attempt)
    except Rejected:
        return  # without a spec, no attempt had a key to write to
    delete_orphans(context.storage, spec, claim.claimed_at)


def _try_to_clear(claim: Claim, context: WorkerContext) -> None:
    """Delete the orphans of an earlier attempt whose worker died, unless the store is unavailable."""
    if claim.attempt == 1:
        return
    try:
        _clear(claim, context)
    except Unavailable as error:
        logger.warning("orphaned uploads and files could not be deleted: %s", error, extra=claim.log_context())


def _try_to_delete_former(claim: Claim, context: WorkerContext) -> None:
    """Delete what an attempt of an earlier version left under the former key, unless the store is unavailable.

    Called once the export is COMPLETED, because until then that attempt may have been followed by another one.
    """
    if claim.attempt == 1:
        return
    try:
        delete_former_object(context.storage, context.read_spec(claim.job, claim.attempt))
    except Unavailable as error:
        logger.warning("the object of an earlier version could not be deleted: %s", error, extra=claim.log_context())
