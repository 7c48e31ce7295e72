"""Keeps one row for each completion and channel, so that one message is sent despite redeliveries and crashes."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from config.events import ExportFinished
from config.labels import Channel
from config.tables import notices
from notify.notice import CLOCKS_DIFFER, Notice, State, find_damage, read_notice
from runtime.database import reading, writing
from runtime.retry import Backoff

logger = logging.getLogger(__name__)

LONGEST_DELAY = timedelta(minutes=15)
REASON_LIMIT = 500

# Literals and not parameters, so that every plan can use the index of open notices.
_IS_OPEN = notices.c.state.in_([literal_column(f"'{state}'") for state in (State.PENDING, State.SENDING)])
_IS_BEING_SENT = and_(notices.c.state == State.SENDING, notices.c.message_id.is_not(None))


class Notices:
    """The table `waybill_notices`: only this class changes the state of a notice, with one statement per verb.

    The number of the attempt is the fencing token: a notifier that lost its lease changes nothing, except that
    it may record that the message was sent, which stays true.

    An open notice has a `message_id` while its message is being sent, until the receiver responds. If the lease ends
    then, the message may have been sent: see `suspect`.

    A notice is retried for `retry_for`, however many attempts that takes, and one last time after it. The delay
    between attempts starts at `first_delay` and doubles. Every method raises Unavailable when the database fails.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        retry_for: timedelta,
        first_delay: timedelta,
        lease: timedelta,
        channels: Collection[Channel] = (Channel.MAIL,),
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._retry_for = retry_for
        self._lease = lease
        first = first_delay.total_seconds()
        self._retries = Backoff(first, longest=LONGEST_DELAY.total_seconds())
        # The message may have been sent already, so it is repeated ever more rarely.
        self._unanswered_retries = Backoff(first, longest=retry_for.total_seconds())

    def record(self, event: ExportFinished, now: datetime, traceparent: str | None = None) -> bool:
        """Create the notices of a completion, one for each channel; return False if it has notices already.

        A channel that is added later gets no notices of earlier completions.
        """
        row = {
            "event_id": event.event_id,
            "export_id": event.batch_export_id,
            "attempt": event.attempt,
            "status": event.status,
            "payload": event.encode().decode(),
            "state": State.PENDING,
            "created_at": now,
            "next_attempt_at": now,
            "traceparent": traceparent,
        }
        with writing(self._engine) as connection:
            if not self._insert(connection, row, (Channel.MAIL,)):
                return False
            self._insert(connection, row, [each for each in self._channels if each is not Channel.MAIL])
        return True

    def find_due(self, now: datetime, channel: Channel, *, limit: int) -> list[Notice]:
        """Return the notices to send now, longest due first: new ones, retries, and those whose lease ended.

        A notice with a value that can't be true or can't be read is failed and not returned.
        """
        names = ("event_id", "channel", "export_id", "attempts", "created_at", "payload", "traceparent")
        wanted = (
            select(*(notices.c[name] for name in names))
            .where(_IS_OPEN, self._is_due(now), _is_for(channel))
            .order_by(notices.c.next_attempt_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.add_columns(self._row_id().label("row_id"))).mappings().all()
        found = []
        for row in rows:
            if (damage := find_damage(row, now)) is None:
                found.append(read_notice(row))
            else:
                self._fail_damaged(row, damage)
        return found

    def next_due(self) -> dict[Channel, datetime]:
        """Return when the next notice of each channel is due; a channel without an open notice is left out."""
        first = select(notices.c.channel, func.min(notices.c.next_attempt_at)).where(_IS_OPEN)
        with reading(self._engine) as connection:
            rows = connection.execute(first.group_by(notices.c.channel)).all()
        return {Channel(channel): due for channel, due in rows if channel in set(Channel) and due is not None}

    def count_open(self) -> dict[Channel, tuple[int, datetime | None]]:
        """Return the number of open notices of each channel, and when the oldest of them was created."""
        counted = select(notices.c.channel, func.count(), func.min(notices.c.created_at)).where(_IS_OPEN)
        with reading(self._engine) as connection:
            rows = connection.execute(counted.group_by(notices.c.channel)).all()
        return {Channel(channel): (count, oldest) for channel, count, oldest in rows if channel in set(Channel)}

    def prune(self, before: datetime, *, limit: int) -> bool:
        """Delete up to `limit` notices that have ended and were created earlier; return whether there may be more."""
        old = select(notices.c.event_id, notices.c.channel).where(notices.c.created_at < before, ~_IS_OPEN).limit(limit)
        with writing(self._engine) as connection:
            ended = tuple_(notices.c.event_id, notices.c.channel).in_(old)
            return connection.execute(delete(notices).where(ended)).rowcount == limit

    def claim(self, notice: Notice, now: datetime) -> Notice | None:
        """Claim a due notice for one attempt, under a lease.

        Returns None if another notifier claimed it first, if its message may have been sent (see `suspect`), or if its
        last attempt crashed (see `abandon`).
        """
        claimed = {
            "state": State.SENDING,
            "attempts": notice.attempts + 1,
            "next_attempt_at": now + self._lease,
        }
        has_time_left = or_(notices.c.state == State.PENDING, notices.c.created_at > now - self._retry_for)
        if not self._change(notice, claimed, self._is_due(now), has_time_left, ~_IS_BEING_SENT):
            return None
        return replace(notice, attempts=notice.attempts + 1)

    def begin(self, notice: Notice, message_id: str, now: datetime) -> bool:
        """Record that the message of a claimed notice is sent now; return False if the lease was lost."""
        begun = {"next_attempt_at": now + self._lease, "message_id": message_id}
        return self._change(notice, begun, notices.c.state == State.SENDING)

    def suspect(self, notice: Notice, now: datetime) -> bool:
        """Postpone a notice whose lease ended between `begin` and the receiver's response, for a lease or longer.

        Its notifier may be only suspended, and may still record that the message was sent. Returns False if the notice
        is in another state, or if its time is over: see `abandon`.
        """
        due = max(now + self._lease, self._next_attempt(notice, now, self._unanswered_retries))
        later = _pending("the notifier stopped before the receiver responded", due)
        has_time_left = notices.c.created_at > now - self._retry_for
        return self._change(notice, later, self._is_due(now), has_time_left, _IS_BEING_SENT)

    def abandon(self, notice: Notice, now: datetime) -> bool:
        """Fail a notice whose notifier crashed in the last attempt; return False if it is in another state."""
        ended = {
            "state": State.FAILED,
            "next_attempt_at": None,
            "error": "the notifier crashed in the last attempt; the message may have been sent",
        }
        is_over = and_(notices.c.state == State.SENDING, notices.c.created_at <= now - self._retry_for)
        return self._change(notice, ended, self._is_due(now), is_over)

    def extend_lease(self, notice: Notice, now: datetime) -> bool:
        """Extend the lease of a claimed notice; return False if the lease was lost."""
        return self._change(notice, {"next_attempt_at": now + self._lease}, notices.c.state == State.SENDING)

    def mark_sent(self, notice: Notice, message_id: str, now: datetime) -> bool:
        """Record that the message was sent, which needs no lease; return False if it was recorded before."""
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

    def skip(self, notice: Notice, reason: str) -> bool:
        """Record that no message is sent; return False if the lease was lost."""
        return self._end(notice, State.SKIPPED, reason)

    def fail(self, notice: Notice, reason: str) -> bool:
        """Record that the message can't be delivered; return False if the lease was lost."""
        return self._end(notice, State.FAILED, reason)

    def postpone(self, notice: Notice, reason: str, now: datetime) -> bool:
        """Schedule the next attempt of a claimed notice; return False if the lease was lost."""
        return self._postpone(notice, reason, now, self._retries)

    def postpone_unanswered(self, notice: Notice, reason: str, now: datetime) -> bool:
        """Postpone a notice whose message may have been sent, with delays that double without a limit."""
        return self._postpone(notice, reason, now, self._unanswered_retries)

    def release(self, notice: Notice, reason: str, now: datetime) -> bool:
        """Postpone a claimed notice whose message was not sent; return False if it was, or if the lease was lost."""
        later = _pending(reason, self._next_attempt(notice, now, self._retries))
        return self._change(notice, later, notices.c.state == State.SENDING, notices.c.message_id.is_(None))

    def is_last(self, notice: Notice, now: datetime) -> bool:
        """Return whether an attempt that ends now is the last one of its notice."""
        return now >= self._end_of(notice)

    def _postpone(self, notice: Notice, reason: str, now: datetime, retries: Backoff) -> bool:
        later = _pending(reason, self._next_attempt(notice, now, retries))
        return self._change(notice, later, notices.c.state == State.SENDING)

    def _next_attempt(self, notice: Notice, now: datetime, retries: Backoff) -> datetime:
        return min(now + timedelta(seconds=retries.delay(notice.attempts)), self._end_of(notice))

    def _end_of(self, notice: Notice) -> datetime:
        return notice.created_at + self._retry_for

    def _is_due(self, now: datetime) -> ColumnElement[bool]:
        """Select notices that are due; a time that is missing, or later than any that is set, is damaged and counts."""
        at = notices.c.next_attempt_at
        return or_(at <= now, at > now + self._retry_for + self._lease + CLOCKS_DIFFER, at.is_(None))

    def _insert(self, connection: Connection, row: Mapping[str, Any], channels: Collection[Channel]) -> bool:
        """Insert the row for channels that have none; return whether there was one."""
        if not channels:
            return False
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        rows = [{**row, "channel": channel} for channel in channels]
        made = insert(notices).values(rows).on_conflict_do_nothing().returning(notices.c.event_id)
        return connection.execute(made).first() is not None

    def _row_id(self) -> ColumnElement[Any]:
        """Select what finds a row whose event id or channel is not valid text, which only SQLite can store."""
        return literal_column("rowid") if self._engine.dialect.name == "sqlite" else notices.c.event_id

    def _fail_damaged(self, row: RowMapping, damage: str) -> None:
        same = and_(self._row_id() == row["row_id"], _IS_OPEN)
        if self._engine.dialect.name != "sqlite":
            same = and_(same, notices.c.channel == row["channel"])
        logger.error("failed a notice that can't be read: %s", damage, extra={"event_id": str(row["event_id"])})
        with writing(self._engine) as connection:
            ended = {"state": State.FAILED, "next_attempt_at": None, "message_id": None, "error": damage}
            connection.execute(update(notices).where(same).values(ended))

    def _end(self, notice: Notice, state: State, reason: str) -> bool:
        ended = {"state": state, "next_attempt_at": None, "message_id": None, "error": reason[:REASON_LIMIT]}
        return self._change(notice, ended, notices.c.state == State.SENDING)

    def _change(self, notice: Notice, values: Mapping[str, Any], *conditions: Any) -> bool:
        changed = (
            update(notices)
            .where(
                notices.c.event_id == notice.event_id,
                notices.c.channel == notice.channel,
                notices.c.attempts == notice.attempts,
                _IS_OPEN,
                *conditions,
            )
            .values(values)
        )
        with writing(self._engine) as connection:
            return connection.execute(changed).rowcount == 1


def _is_for(channel: Channel) -> ColumnElement[bool]:
    """Select the notices of a channel; those of no channel are found with the emails, so that they end, too."""
    if channel is Channel.MAIL:
        return notices.c.channel.not_in([each for each in Channel if each is not Channel.MAIL])
    return notices.c.channel == channel


def _pending(reason: str, due: datetime) -> dict[str, Any]:
    return {"state": State.PENDING, "next_attempt_at": due, "message_id": None, "error": reason[:REASON_LIMIT]}
