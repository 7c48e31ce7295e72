"""Declares the records of the job store: jobs, runs, claims, and how a run ended."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any

from config.events import Status
from config.labels import Outcome
from runtime.tracing import trace_id

FAILURES = frozenset({Outcome.RETRY, Outcome.LOST})
"""Outcomes that count as failed attempts; a release between two of them does not reset the count."""

FARTHEST = timedelta(days=2)
"""No lease and no next attempt is set this far ahead: a stored time beyond it is damaged and counts as past."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE_CREATION = timedelta(minutes=1)
"""From here on, a creation time in the future is reported: the clocks of machines do not differ as much."""

LATEST_CREATION = timedelta(days=1)
"""How far in the future a creation time may be; no time zone is as far ahead of UTC."""


class Unreadable(Exception):
    """A row has a value that can't be loaded; the text names the column and what is wrong with the value."""


@dataclass(frozen=True, kw_only=True)
class ExportKey:
    """What identifies a row of `batch_exports`, and nothing else of it.

    `row_id` is SQLite's number of the row, which also finds rows whose ids are not valid text.
    """

    project_id: str
    export_id: str
    row_id: int | None = None

    def log_context(self) -> dict[str, Any]:
        """Return the `extra=` fields of log lines about it."""
        return {"project_id": self.project_id, "export_id": self.export_id}


@dataclass(frozen=True, kw_only=True)
class NewExport:
    """An export to be created: the fields of its row, with a random id unless the caller has one."""

    project_id: str
    user_id: str
    name: str
    query: Any
    format: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class LeaseState(StrEnum):
    """Whether the lease of a claim is still valid, according to the database."""

    KEPT = auto()
    """It is valid, and the change was written."""
    CANCELLED = auto()
    """The user cancelled the export."""
    LOST = auto()
    """Another attempt has started, or the row was deleted or is no longer PROCESSING."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at an export; `failures` is the number of failed attempts in a row directly before it.

    `stage` is where it spent most of the time between its last two heartbeats; None if no batch has passed.
    `outcome` is an Outcome, or a text that another version of Waybill wrote.
    """

    export_id: str
    attempt: int
    project_id: str
    worker: str
    claimed_at: datetime
    heartbeat_at: datetime
    lease_until: datetime
    finished_at: datetime | None
    outcome: str | None
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
    ignored: str | None
    stage: str | None

    def live(self, now: datetime) -> bool:
        """Whether its lease is live, so that a worker may be running it."""
        return self.finished_at is None and now < self.lease_until <= now + FARTHEST

    @property
    def failed_so_far(self) -> int:
        """Failed attempts in a row including this one; an open run counts, because only dead ones are asked."""
        if self.finished_at is None or self.outcome in FAILURES:
            return max(self.failures, 0) + 1
        return max(self.failures, 0) if self.outcome == Outcome.RELEASED else 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of `batch_exports` with its latest attempt."""

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
    def key(self) -> ExportKey:
        """What identifies its row."""
        return ExportKey(project_id=self.project_id, export_id=self.id)

    @property
    def attempt(self) -> int:
        """The number of the latest attempt, 0 when there was none."""
        return self.run.attempt if self.run is not None else 0

    @property
    def traceparent(self) -> str | None:
        """The trace of the latest attempt."""
        return self.run.traceparent if self.run is not None else None

    @property
    def failed_so_far(self) -> int:
        """Failed attempts in a row, including one whose worker died and whose run is still open."""
        return self.run.failed_so_far if self.run is not None else 0

    def running(self, now: datetime) -> bool:
        """Whether it is PROCESSING with a live lease."""
        return self.status == Status.PROCESSING and self.run is not None and self.run.live(now)

    @property
    def ended_without_file(self) -> bool:
        """Whether it has ended and no link to a file was given out."""
        return self.status in {Status.FAILED, Status.CANCELLED}

    @property
    def table(self) -> str | None:
        """The table name in the stored query, which may be unknown."""
        name = self.query.get("tableName") if isinstance(self.query, dict) else None
        return name if isinstance(name, str) else None

    def log_context(self) -> dict[str, Any]:
        """Return the `extra=` fields of log lines about it."""
        return {"project_id": self.project_id, "export_id": self.id}


@dataclass(frozen=True, kw_only=True)
class UnreadableJob:
    """A row of `batch_exports` that can't be read, and why."""

    key: ExportKey
    status: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one attempt at a job while its lease is kept."""

    job: Job
    attempt: int
    worker: str
    claimed_at: datetime
    failures: int
    traceparent: str | None = None

    @property
    def resumed(self) -> bool:
        """Whether the attempt before was still open: its worker died."""
        return self.job.run is not None and self.job.run.finished_at is None

    def log_context(self) -> dict[str, Any]:
        """Return the `extra=` fields of log lines about it."""
        traced = {} if self.traceparent is None else {"trace_id": trace_id(self.traceparent)}
        return {**self.job.log_context(), "attempt": self.attempt, **traced}
