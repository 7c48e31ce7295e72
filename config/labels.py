"""Declares the closed sets of values that metric labels take; tables and events use some of them, too."""

from enum import StrEnum, auto
from typing import Literal


class Verdict(StrEnum):
    """The result of one export request."""

    ACCEPTED = auto()
    RESUMED = auto()
    """Accepted although PROCESSING, because the worker that ran it died."""
    DISABLED = auto()
    MALFORMED = auto()
    UNREADABLE = auto()
    """Kafka delivered bytes that are not a record."""
    BUG = auto()
    """An unexpected error, although every dependency answered."""
    MISSING = auto()
    CANCELLED = auto()
    FINISHED = auto()
    STALE = auto()
    RUNNING = auto()
    EXHAUSTED = auto()
    INVALID = auto()
    """The row has a value that no export can have: it can't be read, or its id or creation time is impossible."""
    WAITING = auto()
    """Its next attempt is not due yet."""
    CAPPED = auto()
    """Its project already runs as many exports as it may."""
    OVERTAKEN = auto()
    """The row changed between the guards and the claim."""


class Outcome(StrEnum):
    """How an attempt ended; also `waybill_runs.outcome`."""

    COMPLETED = auto()
    REJECTED = auto()
    """The request can't be honoured; the user was told."""
    RETRY = auto()
    """The attempt failed and the export will be tried again."""
    FAILED = auto()
    """The last attempt failed; the user was told."""
    CANCELLED = auto()
    RELEASED = auto()
    """The worker shut down and gave the export back."""
    LOST = auto()
    """The worker died or stopped sending heartbeats, and its lease expired."""


class Failure(StrEnum):
    """Why an attempt failed; also `waybill_runs.error_class`."""

    REJECTED = auto()
    UNAVAILABLE = auto()
    BUG = auto()
    STALLED = auto()
    """No row was read and no byte written for too long."""
    STALE = auto()
    LOST = auto()
    UNREADABLE = auto()
    """The row has a value that can't be read."""


class Channel(StrEnum):
    """The way that a notice is sent; also `waybill_notices.channel`."""

    MAIL = auto()
    WEBHOOK = auto()
    SLACK = auto()


NoticeChannel = Channel | Literal["all"]
"""The channel of a notice; "all" for a completion event that is no notice yet, or never becomes one."""


class NoticeOutcome(StrEnum):
    """The result of a completion event or of an attempt to send its notice."""

    SENT = auto()
    SKIPPED = auto()
    FAILED = auto()
    RETRIED = auto()
    BUG = auto()
    """An unexpected error: the message is a dead letter now, or the notice will be tried again."""
    UNANSWERED = auto()
    """The receiver may have accepted the message and never said so; it is sent again and may arrive twice."""
    DUPLICATE = auto()
    MALFORMED = auto()
    UNREADABLE = auto()
    """Kafka delivered bytes that are not a record."""


class NoFile(StrEnum):
    """Why a download link leads to no file."""

    INVALID = auto()
    """No key of this installation has sealed the token."""
    EXPIRED = auto()
    CANCELLED = auto()
    FAILED = auto()
    GONE = auto()
    """The row or the file was deleted."""
    NOT_READY = auto()
    LIMITED = auto()
    """Too many requests."""
    UNAVAILABLE = auto()
    """The database or the store does not answer."""


DownloadOutcome = NoFile | Literal["redirected", "served"]
UploadOutcome = Literal["completed", "aborted"]
PartOutcome = Literal["stored", "retried", "failed"]
Stage = Literal["read", "enrich", "encode", "wait", "compress", "checksum", "idle", "upload"]
SizeKind = Literal["raw", "stored"]
PoolState = Literal["in_use", "idle"]
PortName = Literal["internal", "links"]
ClosedConnection = Literal["slow_request", "large_request", "slow_reader", "idle", "too_many"]
"""Why the connection of an HTTP client was closed."""
