"""Decides whether an export may start: pure guards, asked in one order, each of which returns why not, or None."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from config.events import LAST_ATTEMPT, Status, are_valid_ids
from config.labels import Failure, Verdict
from consumer.models import EPOCH, FARTHEST, LATEST_CREATION, Job, Unreadable

INVALID_ID_TEXT = "The ID of this export or of its project is empty or has more than 512 characters."
INVALID_TIME_TEXT = "The creation time of this export is not valid. Please start it again."
STALE_TEXT = "This export waited too long to be run. Please start it again."
INTERNAL_TEXT = "An internal error occurred"


class Reaction(Enum):
    """What the consumer does about a refusal."""

    SKIP = auto()
    WARN = auto()
    FAIL = auto()
    """Set the row to FAILED with `Refusal.text` and notify the user."""
    LOOK_AGAIN = auto()
    """Look for the row again a few times within seconds, then dead-letter the request."""
    DEAD_LETTER = auto()


@dataclass(frozen=True)
class GuardPolicy:
    """The settings that the guards compare with."""

    enabled: bool
    stale_after: timedelta
    max_attempts: int


@dataclass(frozen=True)
class Refusal:
    """Why an export does not start now: `reason` for the log; for FAIL, `text` for the user and the failure's class."""

    verdict: Verdict
    reaction: Reaction
    reason: str
    text: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class Candidate:
    """An export that is to start, with what the guards compare it with; `now` is aware, UTC."""

    job: Job
    policy: GuardPolicy
    now: datetime


Guard = Callable[[Candidate], Refusal | None]


def enabled(policy: GuardPolicy) -> Refusal | None:
    """Refuse all exports while they are disabled; asked before the row is read."""
    if policy.enabled:
        return None
    reason = "batch exports are not enabled: set LANGFUSE_S3_BATCH_EXPORT_ENABLED=true, then replay the dead letters"
    return Refusal(Verdict.DISABLED, Reaction.DEAD_LETTER, reason)


def exists(found: Job | None) -> Job | Refusal:
    """Refuse exports without a row for this project and this export; returns the row's job."""
    return found or Refusal(Verdict.MISSING, Reaction.LOOK_AGAIN, "no such export in this project")


def not_cancelled(export: Candidate) -> Refusal | None:
    """Refuse cancelled exports."""
    if export.job.status != Status.CANCELLED:
        return None
    return Refusal(Verdict.CANCELLED, Reaction.SKIP, "the export was cancelled")


def not_finished(export: Candidate) -> Refusal | None:
    """Refuse finished exports."""
    if export.job.status in {Status.QUEUED, Status.PROCESSING}:
        return None
    return Refusal(Verdict.FINISHED, Reaction.WARN, f"the export is already {export.job.status}")


def dated(export: Candidate) -> Refusal | None:
    """Refuse exports whose creation time can't be true, unless they are running."""
    if EPOCH <= export.job.created_at <= export.now + LATEST_CREATION or export.job.running(export.now):
        return None
    return Refusal(Verdict.INVALID, Reaction.FAIL, INVALID_TIME_TEXT, INVALID_TIME_TEXT, Failure.REJECTED)


def fresh(export: Candidate) -> Refusal | None:
    """Refuse exports that were created too long ago, unless they are running."""
    oldest = export.now - export.policy.stale_after
    if export.job.created_at >= oldest or export.job.running(export.now):
        return None
    reason = f"the export was created more than {export.policy.stale_after.days} days ago"
    return Refusal(Verdict.STALE, Reaction.FAIL, reason, STALE_TEXT, Failure.STALE)


def not_running(export: Candidate) -> Refusal | None:
    """Refuse exports with a live lease."""
    if not export.job.running(export.now):
        return None
    return Refusal(Verdict.RUNNING, Reaction.SKIP, "the export is already running on another worker")


def identified(export: Candidate) -> Refusal | None:
    """Refuse exports whose ids are not valid in the event that reports their end."""
    if are_valid_ids(export.job.project_id, export.job.id):
        return None
    return Refusal(Verdict.INVALID, Reaction.FAIL, INVALID_ID_TEXT, INVALID_ID_TEXT, Failure.REJECTED)


def not_exhausted(export: Candidate) -> Refusal | None:
    """Refuse exports without attempts left; an attempt whose worker died counts as failed."""
    failed = export.job.failed_so_far
    if failed < export.policy.max_attempts and export.job.attempt < LAST_ATTEMPT:
        return None
    reason = f"{failed} attempts failed; the last one ended without reporting an error"
    return Refusal(Verdict.EXHAUSTED, Reaction.FAIL, reason, INTERNAL_TEXT, Failure.LOST)


def due(export: Candidate) -> Refusal | None:
    """Refuse exports whose next attempt is scheduled for later."""
    job = export.job
    if job.status != Status.QUEUED or job.run is None or job.run.next_attempt_at is None:
        return None
    if not export.now < job.run.next_attempt_at <= export.now + FARTHEST:
        return None
    return Refusal(Verdict.WAITING, Reaction.SKIP, "the next attempt is not due yet")


def refuse_unreadable(error: Unreadable) -> Refusal:
    """Refuse an export whose row can't be read; asked instead of the guards, because there is no job."""
    text = f"This export can't be read: {error}. Please start it again."
    return Refusal(Verdict.INVALID, Reaction.FAIL, f"the row can't be read: {error}", text, Failure.UNREADABLE)


GUARDS: tuple[Guard, ...] = (
    not_cancelled,
    not_finished,
    dated,
    fresh,
    not_running,
    identified,
    not_exhausted,
    due,
)
"""Asked in this order, after `enabled` and `exists`, which come before there is a job to ask about."""


def judge(job: Job, policy: GuardPolicy, now: datetime) -> Refusal | None:
    """Ask GUARDS in order; return the first refusal, or None when the export may start."""
    candidate = Candidate(job, policy, now)
    return next((refusal for guard in GUARDS if (refusal := guard(candidate)) is not None), None)
