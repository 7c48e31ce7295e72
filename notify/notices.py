"""Keeps one row for each completion and channel, so that a person is told once, whatever is redelivered or dies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from config.events import ExportFinished
from config.tables import notices
from runtime.database import reading, writing

MAIL = "mail"
LONGEST_PAUSE = timedelta(minutes=15)
MOST_DOUBLINGS = 20
REASON_LIMIT = 500


class State(StrEnum):
    """The states of a notice; a `sending` one that nobody finishes is due again when its lease is over."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    SKIPPED = "skipped"
    FAILED = "failed"


OPEN = (State.PENDING, State.SENDING)


@dataclass(frozen=True)
class Notice:
    """A notice that is due; `attempts` counts the claims on it so far, and `payload` is its completion event."""

    event_id: str
    channel: str
    export_id: str
    attempts: int
    created_at: datetime
    payload: bytes
    traceparent: str | None


class Notices:
    """The table `waybill_notices`: the only thing that changes the state of a notice, one statement a verb.

    The number of the attempt is the fencing token: a notifier whose lease was taken over changes nothing, but for
    the one fact that stays true, that the mail was sent.

    A notice is tried for `patience`, whatever its number of attempts, and a last time when that is over.
    """

    def __init__(self, engine: Engine, *, patience: timedelta, first_pause: timedelta, lease: timedelta) -> None:
        self._engine = engine
        self._patience = patience
        self._first_pause = first_pause
        self._lease = lease

    def record(self, event: ExportFinished, now: datetime, traceparent: str | None = None) -> bool:
        """Make the notice for a completion; False if this ending of the export has one already."""
        row = {
            "event_id": event.event_id,
            "channel": MAIL,
            "export_id": event.batch_export_id,
            "attempt": event.attempt,
            "status": event.status,
            "payload": event.encode().decode(),
            "state": State.PENDING,
            "created_at": now,
            "next_attempt_at": now,
            "traceparent": traceparent,
        }
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        with writing(self._engine) as connection:
            made = insert(notices).values(row).on_conflict_do_nothing().returning(notices.c.event_id)
            return connection.execute(made).first() is not None

    def due(self, now: datetime, *, limit: int) -> list[Notice]:
        """Name the notices to send now, the longest due first: new ones, retries, and those whose notifier died."""
        names = ("event_id", "channel", "export_id", "attempts", "created_at", "payload", "traceparent")
        wanted = (
            select(*(notices.c[name] for name in names))
            .where(notices.c.state.in_(OPEN), notices.c.next_attempt_at <= now)
            .order_by(notices.c.next_attempt_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            found = connection.execute(wanted).mappings().all()
        return [Notice(**{**row, "payload": row["payload"].encode()}) for row in found]

    def next_due(self) -> datetime | None:
        """Say when the next notice is due, or None if none is open."""
        first = select(notices.c.next_attempt_at).where(notices.c.state.in_(OPEN)).order_by(notices.c.next_attempt_at)
        with reading(self._engine) as connection:
            due: datetime | None = connection.scalar(first.limit(1))
            return due

    def waiting(self) -> tuple[int, datetime | None]:
        """Count the open notices, and say when the oldest of them was made."""
        open_ = select(func.count(), func.min(notices.c.created_at)).where(notices.c.state.in_(OPEN))
        with reading(self._engine) as connection:
            count, oldest = connection.execute(open_).one()
            return count, oldest

    def claim(self, notice: Notice, now: datetime) -> Notice | None:
        """Take a due notice for one attempt, under a lease; None if another notifier was quicker, or to abandon it."""
        taken = {
            "state": State.SENDING,
            "attempts": notice.attempts + 1,
            "next_attempt_at": now + self._lease,
        }
        worth_it = or_(notices.c.state == State.PENDING, notices.c.created_at > now - self._patience)
        if not self._change(notice, taken, notices.c.next_attempt_at <= now, worth_it):
            return None
        return replace(notice, attempts=notice.attempts + 1)

    def abandon(self, notice: Notice, now: datetime) -> bool:
        """Fail a notice whose last attempt died with its notifier; False if it is not such a one."""
        ended = {
            "state": State.FAILED,
            "next_attempt_at": None,
            "error": "the notifier died in the last attempt: the mail may have been sent or not",
        }
        over = and_(notices.c.state == State.SENDING, notices.c.created_at <= now - self._patience)
        return self._change(notice, ended, notices.c.next_attempt_at <= now, over)

    def beat(self, notice: Notice, now: datetime) -> bool:
        """Extend the lease of a claimed notice; False if it is another's now."""
        return self._change(notice, {"next_attempt_at": now + self._lease}, notices.c.state == State.SENDING)

    def sent(self, notice: Notice, message_id: str, now: datetime) -> bool:
        """Record that the mail is out: true whoever holds the lease; False if that was known."""
        with writing(self._engine) as connection:
            done = (
                update(notices)
                .where(
                    notices.c.event_id == notice.event_id,
                    notices.c.channel == notice.channel,
                    notices.c.state != State.SENT,
                )
                .values(state=State.SENT, sent_at=now, message_id=message_id, next_attempt_at=None, error=None)
            )
            return connection.execute(done).rowcount == 1

    def skip(self, notice: Notice, why: str) -> bool:
        """Record that there is nobody to tell, or nothing; False if the lease was lost."""
        return self._end(notice, State.SKIPPED, why)

    def fail(self, notice: Notice, why: str) -> bool:
        """Record that the mail can't be delivered; False if the lease was lost."""
        return self._end(notice, State.FAILED, why)

    def postpone(self, notice: Notice, why: str, now: datetime, *, longest: timedelta | None = LONGEST_PAUSE) -> bool:
        """Put a claimed notice off, twice as long each time up to `longest`; False if the lease was lost."""
        pause = self._first_pause * 2 ** min(notice.attempts - 1, MOST_DOUBLINGS)
        later = {
            "state": State.PENDING,
            "next_attempt_at": min(now + (pause if longest is None else min(pause, longest)), self._end_of(notice)),
            "error": why[:REASON_LIMIT],
        }
        return self._change(notice, later, notices.c.state == State.SENDING)

    def is_last(self, notice: Notice, now: datetime) -> bool:
        """Say whether an attempt that ends now is the last that its notice gets."""
        return now >= self._end_of(notice)

    def _end_of(self, notice: Notice) -> datetime:
        return notice.created_at + self._patience

    def _end(self, notice: Notice, state: State, why: str) -> bool:
        ended = {"state": state, "next_attempt_at": None, "error": why[:REASON_LIMIT]}
        return self._change(notice, ended, notices.c.state == State.SENDING)

    def _change(self, notice: Notice, values: Mapping[str, Any], *also: Any) -> bool:
        changed = (
            update(notices)
            .where(
                notices.c.event_id == notice.event_id,
                notices.c.channel == notice.channel,
                notices.c.attempts == notice.attempts,
                notices.c.state.in_(OPEN),
                *also,
            )
            .values(values)
        )
        with writing(self._engine) as connection:
            return connection.execute(changed).rowcount == 1
