"""Declares a notice and its states, and finds the values that no notice can have."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import RowMapping

from config.labels import Channel

MOST_ATTEMPTS = 2**31 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(days=1)
"""No clock of a machine is further ahead: a stored time beyond this is damaged."""


class State(StrEnum):
    """The states of a notice; one that stays `sending` is due again when its lease ends."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Notice:
    """A notice that is due; `attempts` counts its claims so far, and `payload` is its completion event."""

    event_id: str
    channel: Channel
    export_id: str
    attempts: int
    created_at: datetime
    payload: bytes
    traceparent: str | None

    @property
    def key(self) -> tuple[str, Channel]:
        """What identifies the notice."""
        return self.event_id, self.channel


def find_damage(row: RowMapping, now: datetime) -> str | None:
    """Return what is wrong with the values of a notice, or None if nothing is."""
    for name in ("event_id", "channel", "export_id", "payload"):
        if not isinstance(row[name], str):
            return f"{name} has no valid value"
    if row["channel"] not in set(Channel):
        return "channel names no channel of this version"
    if not isinstance(row["attempts"], int) or not 0 <= row["attempts"] < MOST_ATTEMPTS:
        return "attempts has no valid value"
    if row["created_at"] is None or not EPOCH < row["created_at"] < now + CLOCKS_DIFFER:
        return "created_at has no valid value"
    return None


def read_notice(row: RowMapping) -> Notice:
    """Return the notice of a row without damage."""
    return Notice(
        event_id=row["event_id"],
        channel=Channel(row["channel"]),
        export_id=row["export_id"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        payload=row["payload"].encode(),
        traceparent=row["traceparent"],
    )
