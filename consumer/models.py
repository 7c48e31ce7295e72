"""Names what the job store hands out: jobs, runs, claims, and how a run ended."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any

from config.events import Status
from config.labels import Outcome
from runtime.tracing import trace_id

FAILURES = frozenset({Outcome.RETRY, Outcome.LOST})
"""Outcomes that count towards the last attempt; a release between them counts for nothing."""


class Hold(StrEnum):
    """Whether a claim still holds, as the database says."""

    KEPT = auto()
    """It holds, and what was to be written is written."""
    CANCELLED = auto()
    """The user cancelled the export."""
    LOST = auto()
    """Another attempt has taken over, or the row is gone or no longer PROCESSING."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at an export; `failures` counts the failed ones in a row right before it."""

    export_id: str
    attempt: int
    project_id: str
    worker: str
    claimed_at: datetime
    heartbeat_at: datetime
    lease_until: datetime
    finished_at: datetime | None
    outcome: Outcome | None
    failures: int
    error_class: str | None
    error: str | None
    rows: int
    bytes: int
    object_key: str | None
    sha256: str | None
    truncated: bool
    next_attempt_at: datetime | None
    traceparent: str | None

    def live(self, now: datetime) -> bool:
        """Whether a worker has it now, as far as the lease tells."""
        return self.finished_at is None and self.lease_until > now

    @property
    def failed_so_far(self) -> int:
        """Failed attempts in a row up to and with this one; an open run counts, for it is asked of dead ones."""
        if self.finished_at is None or self.outcome in FAILURES:
            return self.failures + 1
        return self.failures if self.outcome is Outcome.RELEASED else 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of `batch_exports`, with the latest attempt at it."""

    id: str
    project_id: str
    user_id: str
    name: str
    status: str
    format: str
    query: Any
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    url: str | None
    log: str | None
    run: Run | None

    @property
    def attempt(self) -> int:
        """The number of the latest attempt, 0 when there was none."""
        return self.run.attempt if self.run is not None else 0

    @property
    def traceparent(self) -> str | None:
        """The trace that the latest attempt belongs to."""
        return self.run.traceparent if self.run is not None else None

    @property
    def failed_so_far(self) -> int:
        """Failed attempts in a row, the dead one that still holds the row included."""
        return self.run.failed_so_far if self.run is not None else 0

    def running(self, now: datetime) -> bool:
        """Whether a worker has it now."""
        return self.status == Status.PROCESSING and self.run is not None and self.run.live(now)

    @property
    def ended_without_file(self) -> bool:
        """Whether it ended, and nobody was given a file."""
        return self.status in {Status.FAILED, Status.CANCELLED}

    @property
    def table(self) -> str | None:
        """The table that the stored query names, as it stands there."""
        name = self.query.get("tableName") if isinstance(self.query, dict) else None
        return name if isinstance(name, str) else None

    def log_context(self) -> dict[str, Any]:
        """Give what log lines about it carry in `extra=`."""
        return {"project_id": self.project_id, "export_id": self.id}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one attempt at a job, for as long as its lease is kept up."""

    job: Job
    attempt: int
    worker: str
    claimed_at: datetime
    failures: int
    traceparent: str | None = None

    def log_context(self) -> dict[str, Any]:
        """Give what log lines about it carry in `extra=`."""
        traced = {} if self.traceparent is None else {"trace_id": trace_id(self.traceparent)}
        return {**self.job.log_context(), "attempt": self.attempt, **traced}
