"""Decides whether an export may start: a tuple of questions, asked in order, without touching anything."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from config.events import Status
from config.labels import Failure, Verdict
from consumer.models import Job

STALE_TEXT = "This export waited too long to be run. Please start it again."
INTERNAL_TEXT = "An internal error occurred"


class Reaction(Enum):
    """What the consumer does about a refusal."""

    SKIP = auto()
    WARN = auto()
    FAIL = auto()
    """Set the row to FAILED with `Refusal.text` and tell the user."""
    LOOK_AGAIN = auto()
    """Look for the row a few times within seconds, then dead-letter the request."""
    DEAD_LETTER = auto()


@dataclass(frozen=True)
class Policy:
    """The settings that the guards go by."""

    enabled: bool
    stale_after: timedelta
    max_attempts: int


@dataclass(frozen=True)
class Refusal:
    """Why an export does not start now: for the log, and for FAIL the user's words and the failure's class."""

    verdict: Verdict
    reaction: Reaction
    reason: str
    text: str = ""
    failure: Failure | None = None


Guard = Callable[[Job | None, Policy, datetime], Refusal | None]


def enabled(_: Job | None, policy: Policy, __: datetime) -> Refusal | None:
    """Let pass when exports are switched on."""
    if policy.enabled:
        return None
    reason = "batch exports are not enabled: set LANGFUSE_S3_BATCH_EXPORT_ENABLED=true, then replay the dead letters"
    return Refusal(Verdict.DISABLED, Reaction.DEAD_LETTER, reason)


def exists(job: Job | None, _: Policy, __: datetime) -> Refusal | None:
    """Let pass when there is a row for this project and this export."""
    if job is not None:
        return None
    return Refusal(Verdict.MISSING, Reaction.LOOK_AGAIN, "no such export in this project")


def not_cancelled(job: Job | None, _: Policy, __: datetime) -> Refusal | None:
    """Let pass what the user still wants."""
    if job is None or job.status != Status.CANCELLED:
        return None
    return Refusal(Verdict.CANCELLED, Reaction.SKIP, "the export was cancelled")


def not_finished(job: Job | None, _: Policy, __: datetime) -> Refusal | None:
    """Let pass what has not come to an end."""
    if job is None or job.status in {Status.QUEUED, Status.PROCESSING}:
        return None
    return Refusal(Verdict.FINISHED, Reaction.WARN, f"the export is {job.status} already")


def fresh(job: Job | None, policy: Policy, now: datetime) -> Refusal | None:
    """Let pass what was asked for lately enough to be of use; what runs already may go on."""
    if job is None or job.created_at >= now - policy.stale_after or job.running(now):
        return None
    reason = f"the export was created more than {policy.stale_after.days} days ago"
    return Refusal(Verdict.STALE, Reaction.FAIL, reason, STALE_TEXT, Failure.STALE)


def not_running(job: Job | None, _: Policy, now: datetime) -> Refusal | None:
    """Let pass what no worker has."""
    if job is None or not job.running(now):
        return None
    return Refusal(Verdict.RUNNING, Reaction.SKIP, "a worker is at it already")


def not_exhausted(job: Job | None, policy: Policy, _: datetime) -> Refusal | None:
    """Let pass what has attempts left, those counted that took their worker down with them."""
    if job is None or job.failed_so_far < policy.max_attempts:
        return None
    reason = f"{job.failed_so_far} attempts failed, the last one without a word"
    return Refusal(Verdict.EXHAUSTED, Reaction.FAIL, reason, INTERNAL_TEXT, Failure.LOST)


def due(job: Job | None, _: Policy, now: datetime) -> Refusal | None:
    """Let pass what is not in the pause after a failed attempt."""
    if job is None or job.status != Status.QUEUED or job.run is None or job.run.next_attempt_at is None:
        return None
    if job.run.next_attempt_at <= now:
        return None
    return Refusal(Verdict.WAITING, Reaction.SKIP, "the next attempt is not due yet")


GUARDS: tuple[Guard, ...] = (
    enabled,
    exists,
    not_cancelled,
    not_finished,
    fresh,
    not_running,
    not_exhausted,
    due,
)


def judge(job: Job | None, policy: Policy, now: datetime) -> Refusal | None:
    """Ask the guards in order: the first refusal, or None when the export may start."""
    return next((refusal for guard in GUARDS if (refusal := guard(job, policy, now)) is not None), None)
