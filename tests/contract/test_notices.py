"""The store of notices with concurrent notifiers, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Row, insert, select, update

from config.events import ExportFinished, Status, read_finished
from config.labels import Channel
from config.tables import notices, outbox
from notify.catch_up import LOOK_BACK, find_published
from notify.notice import Notice
from notify.notices import Notices
from notify.recipient import find_recipient
from tests.support.notices import NOW, add_export, completion

LEASE = timedelta(seconds=60)
PAUSE = timedelta(seconds=5)
PATIENCE = timedelta(hours=24)


@pytest.fixture
def store(engine: Engine) -> Notices:
    return Notices(engine, retry_for=PATIENCE, first_delay=PAUSE, lease=LEASE)


def row(engine: Engine) -> Row[Any]:
    with engine.connect() as connection:
        return connection.execute(select(notices)).one()


def claim(store: Notices, now: datetime) -> Notice:
    claimed = store.claim(store.find_due(now, Channel.MAIL, limit=1)[0], now)
    assert claimed is not None
    return claimed


def test_a_completion_is_recorded_as_a_notice_with_its_event(engine: Engine, store: Notices) -> None:
    assert store.record(completion(), NOW)

    kept = row(engine)
    assert (kept.event_id, kept.channel, kept.export_id) == ("event-1", "mail", "export-1")
    assert (kept.attempt, kept.status, kept.state, kept.attempts) == (1, "COMPLETED", "pending", 0)
    assert (kept.created_at, kept.next_attempt_at) == (NOW, NOW)
    assert [
        ExportFinished.model_validate_json(each.payload) for each in store.find_due(NOW, Channel.MAIL, limit=9)
    ] == [completion()]


@pytest.mark.parametrize("again", [{}, {"rows": 5}, {"event_id": "event-2"}])
def test_the_same_outcome_is_recorded_once(store: Notices, again: dict[str, Any]) -> None:
    assert store.record(completion(), NOW)

    assert not store.record(completion(**again), NOW)
    assert len(store.find_due(NOW, Channel.MAIL, limit=9)) == 1


@pytest.mark.parametrize(
    "other",
    [{"event_id": "e2", "batch_export_id": "export-2"}, {"event_id": "e2", "attempt": 2}],
)
def test_another_outcome_has_its_own_notice(store: Notices, other: dict[str, Any]) -> None:
    assert store.record(completion(status=Status.FAILED), NOW)

    assert store.record(completion(**other), NOW)


def test_concurrent_notifiers_record_one_notice_and_claim_it_once(engine: Engine, store: Notices) -> None:
    others = [Notices(engine, retry_for=PATIENCE, first_delay=PAUSE, lease=LEASE) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        recorded = list(pool.map(lambda each: each.record(completion(), NOW), others))
        due = store.find_due(NOW, Channel.MAIL, limit=1)[0]
        claimed = list(pool.map(lambda each: each.claim(due, NOW), others))

    assert sorted(recorded) == [False] * 5 + [True]
    assert sum(each is not None for each in claimed) == 1
    assert row(engine).attempts == 1


def test_notices_that_ended_long_ago_are_deleted_and_open_ones_are_not(engine: Engine, store: Notices) -> None:
    for number in range(5):
        store.record(completion(event_id=f"e{number}", attempt=number), NOW + timedelta(seconds=number))
    with engine.begin() as connection:
        connection.execute(update(notices).where(notices.c.attempt.in_([0, 1, 3])).values(state="sent"))

    assert store.prune(NOW + timedelta(seconds=3), limit=1)
    assert store.prune(NOW + timedelta(seconds=3), limit=1)
    assert not store.prune(NOW + timedelta(seconds=3), limit=1)

    with engine.connect() as connection:
        assert sorted(connection.scalars(select(notices.c.attempt))) == [2, 3, 4]


def test_a_claimed_notice_is_due_again_after_its_notifier_died(store: Notices) -> None:
    store.record(completion(), NOW)
    first = claim(store, NOW)

    assert store.find_due(NOW + LEASE - timedelta(seconds=1), Channel.MAIL, limit=9) == []
    assert store.next_due() == {Channel.MAIL: NOW + LEASE}
    second = claim(store, NOW + LEASE)
    assert (first.attempts, second.attempts) == (1, 2)


def test_a_heartbeat_extends_the_lease(store: Notices) -> None:
    store.record(completion(), NOW)
    claimed = claim(store, NOW)

    assert store.extend_lease(claimed, NOW + timedelta(seconds=10))

    assert store.find_due(NOW + LEASE, Channel.MAIL, limit=9) == []
    assert len(store.find_due(NOW + LEASE + timedelta(seconds=10), Channel.MAIL, limit=9)) == 1


def test_a_notifier_that_lost_its_lease_changes_nothing(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    stale = claim(store, NOW)
    alive = claim(store, NOW + LEASE)

    assert not store.extend_lease(stale, NOW)
    assert not store.skip(stale, "why")
    assert not store.fail(stale, "why")
    assert not store.postpone(stale, "why", NOW)
    assert row(engine).state == "sending"
    assert store.skip(alive, "nobody")
    assert (row(engine).state, row(engine).error, row(engine).next_attempt_at) == ("skipped", "nobody", None)


def test_an_email_that_may_have_been_sent_is_not_claimed_but_postponed_for_a_lease(
    engine: Engine, store: Notices
) -> None:
    store.record(completion(), NOW)
    stopped = claim(store, NOW)
    assert store.begin(stopped, "<1@example.com>", NOW)
    assert not store.suspect(stopped, NOW + LEASE - timedelta(seconds=1))

    over = NOW + LEASE
    due = store.find_due(over, Channel.MAIL, limit=1)[0]
    assert store.claim(due, over) is None
    assert store.suspect(due, over)

    assert not store.suspect(due, over)
    assert (row(engine).state, row(engine).next_attempt_at, row(engine).message_id) == ("pending", over + LEASE, None)
    assert "before the receiver responded" in row(engine).error
    assert claim(store, over + LEASE).attempts == 2


def test_a_suspended_notifier_may_still_record_that_the_email_was_sent(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    suspended = claim(store, NOW)
    store.begin(suspended, "<1@example.com>", NOW)
    assert store.suspect(suspended, NOW + LEASE)

    assert store.mark_sent(suspended, "<1@example.com>", NOW + LEASE)

    assert (row(engine).state, row(engine).message_id) == ("sent", "<1@example.com>")
    assert store.find_due(NOW + 9 * LEASE, Channel.MAIL, limit=1) == []


def test_an_email_whose_lease_was_lost_is_not_begun(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    stale = claim(store, NOW)
    claim(store, NOW + LEASE)

    assert not store.begin(stale, "<1@example.com>", NOW + LEASE)
    assert row(engine).message_id is None


@pytest.mark.parametrize("end", ["postpone", "postpone_unanswered", "skip", "fail"])
def test_a_response_ends_the_doubt_about_an_email(engine: Engine, store: Notices, end: str) -> None:
    store.record(completion(), NOW)
    claimed = claim(store, NOW)
    store.begin(claimed, "<1@example.com>", NOW)

    assert getattr(store, end)(claimed, "why", *([NOW] if end.startswith("postpone") else []))

    assert row(engine).message_id is None
    assert not store.suspect(claimed, NOW + 9 * LEASE)


def test_only_an_email_that_was_not_begun_is_released(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    claimed = claim(store, NOW)
    store.begin(claimed, "<1@example.com>", NOW)

    assert not store.release(claimed, "the notifier shut down", NOW)

    assert row(engine).state == "sending"
    store.postpone(claimed, "later", NOW)
    other = claim(store, NOW + LEASE)
    assert store.release(other, "the notifier shut down", NOW + LEASE)
    assert not store.begin(other, "<1@example.com>", NOW + LEASE)
    assert (row(engine).state, row(engine).error) == ("pending", "the notifier shut down")


def test_an_email_that_may_have_been_sent_fails_after_its_deadline(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    store.begin(claim(store, NOW), "<1@example.com>", NOW)
    late = NOW + PATIENCE
    due = store.find_due(late, Channel.MAIL, limit=1)[0]

    assert store.claim(due, late) is None
    assert not store.suspect(due, late)
    assert store.abandon(due, late)
    assert row(engine).state == "failed"


def test_a_delivered_email_is_marked_as_sent_once_by_any_notifier(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    stale = claim(store, NOW)
    alive = claim(store, NOW + LEASE)

    assert store.mark_sent(stale, "<1@example.com>", NOW)

    assert not store.mark_sent(alive, "<1@example.com>", NOW)
    assert not store.postpone(alive, "later", NOW)
    kept = row(engine)
    assert (kept.state, kept.message_id, kept.sent_at, kept.next_attempt_at) == ("sent", "<1@example.com>", NOW, None)
    assert store.find_due(NOW + timedelta(days=9), Channel.MAIL, limit=9) == []
    assert store.next_due() == {}


def postpone(store: Notices, now: datetime) -> datetime:
    """Claim the due notice and postpone it; returns when it is due again."""
    assert store.postpone(claim(store, now), "later", now)
    due = store.next_due()[Channel.MAIL]
    assert due is not None
    assert store.find_due(due - timedelta(seconds=1), Channel.MAIL, limit=9) == []
    return due


def test_a_postponed_notice_waits_twice_as_long_each_time_up_to_15_minutes(store: Notices) -> None:
    store.record(completion(), NOW)
    now, pauses = NOW, []
    for _ in range(11):
        due = postpone(store, now)
        pauses.append((due - now).total_seconds())
        now = due

    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]


def test_an_email_is_sent_within_15_minutes_after_an_hour_without_smtp_server(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    now, back = NOW, NOW + timedelta(hours=1)
    while now < back:
        now = postpone(store, now)

    assert now - back <= timedelta(minutes=15)
    assert store.mark_sent(claim(store, now), "<1@example.com>", now)
    assert row(engine).state == "sent"


def test_an_email_that_may_have_been_sent_is_retried_at_growing_intervals(store: Notices) -> None:
    store.record(completion(), NOW)
    now, attempts = NOW, 0
    while not store.is_last(claimed := claim(store, now), now):
        assert store.postpone_unanswered(claimed, "no answer", now)
        now, attempts = store.next_due().get(Channel.MAIL, now), attempts + 1

    assert (now, attempts) == (NOW + PATIENCE, 15)


def test_a_notice_is_retried_until_its_deadline_and_once_after_it(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    now = NOW
    while now < NOW + PATIENCE:
        assert not store.is_last(claim(store, now), now)
        with engine.begin() as connection:
            connection.execute(update(notices).values(state="pending", attempts=0, next_attempt_at=now))
        now = postpone(store, now)
        if now < NOW + PATIENCE:
            now += timedelta(hours=1)  # the next look is late

    last = claim(store, now)
    assert store.is_last(last, now)
    assert store.fail(last, "x" * 9_000)
    assert (row(engine).state, len(row(engine).error)) == ("failed", 500)


def test_a_notice_that_waited_past_its_deadline_gets_one_attempt(store: Notices) -> None:
    store.record(completion(), NOW)
    later = NOW + timedelta(days=3)

    claimed = claim(store, later)

    assert store.is_last(claimed, later)
    assert not store.abandon(claimed, later)


def test_a_notice_that_kills_its_notifiers_fails_after_its_deadline(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    now = NOW
    while now < NOW + PATIENCE:
        due = store.find_due(now, Channel.MAIL, limit=9)[0]
        assert not store.abandon(due, now)
        claimed = store.claim(due, now)
        assert claimed is not None
        now += timedelta(hours=6)
    due = store.find_due(now, Channel.MAIL, limit=9)[0]

    assert store.claim(due, now) is None
    assert store.abandon(due, now)
    assert not store.abandon(due, now)
    assert row(engine).state == "failed"
    assert "crashed" in row(engine).error


def test_the_notices_due_longest_come_first(store: Notices) -> None:
    for number in (2, 3, 1):
        event = completion(event_id=f"e{number}", batch_export_id=f"x{number}")
        store.record(event, NOW + timedelta(seconds=number))

    assert [each.event_id for each in store.find_due(NOW + timedelta(seconds=9), Channel.MAIL, limit=2)] == ["e1", "e2"]


@pytest.mark.parametrize("text", ["reason with \x00 in it", "'; DROP TABLE waybill_notices; --", "日本 👩‍💻"])
def test_any_reason_in_an_event_is_kept(store: Notices, text: str) -> None:
    store.record(completion(status=Status.FAILED, error=text), NOW)

    assert ExportFinished.model_validate_json(store.find_due(NOW, Channel.MAIL, limit=1)[0].payload).error == text


def test_completions_published_some_time_ago_are_found_again(engine: Engine) -> None:
    def publish(number: int, age: timedelta | None, topic: str = "export-completions") -> None:
        values = {
            "topic": topic,
            "key": f"x{number}",
            "payload": completion(event_id=f"e{number}").encode().decode(),
            "created_at": NOW - timedelta(days=3),
            "published_at": None if age is None else NOW - age,
        }
        with engine.begin() as connection:
            connection.execute(insert(outbox).values(values))

    publish(1, timedelta(minutes=6))
    publish(2, timedelta(minutes=7))
    publish(3, timedelta(minutes=4))
    publish(4, None)
    publish(5, timedelta(days=2))
    publish(6, timedelta(minutes=6), topic="other")

    found = list(find_published(engine, "export-completions", since=NOW - LOOK_BACK, now=NOW))

    assert [read_finished(each.payload).event_id for each in found] == ["e2", "e1"]
    assert [each.published_at for each in found] == [NOW - timedelta(minutes=7), NOW - timedelta(minutes=6)]


@pytest.mark.parametrize(
    ("query", "chosen"), [({"columns": ["id"]}, True), ({"columns": None}, False), ({}, False), ("columns", False)]
)
def test_a_recipient_says_whether_the_query_names_columns(engine: Engine, query: object, chosen: bool) -> None:
    add_export(engine, query=query)
    found = find_recipient(engine, completion())
    assert found is not None
    assert found.columns_chosen is chosen


@pytest.fixture
def all_channels(engine: Engine) -> Notices:
    return Notices(engine, retry_for=PATIENCE, first_delay=PAUSE, lease=LEASE, channels=tuple(Channel))


def channels(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.scalars(select(notices.c.channel)))


def test_a_completion_has_one_notice_for_each_channel(engine: Engine, all_channels: Notices) -> None:
    assert all_channels.record(completion(), NOW)
    assert not all_channels.record(completion(), NOW)
    assert not all_channels.record(completion(event_id="event-2"), NOW)

    assert channels(engine) == ["mail", "slack", "webhook"]
    for channel in Channel:
        assert [each.channel for each in all_channels.find_due(NOW, channel, limit=9)] == [channel]


def test_a_channel_that_is_added_gets_no_earlier_completions(
    engine: Engine, store: Notices, all_channels: Notices
) -> None:
    store.record(completion(), NOW)

    assert not all_channels.record(completion(), NOW)

    assert channels(engine) == ["mail"]


def test_concurrent_notifiers_record_each_channel_once(engine: Engine) -> None:
    others = [
        Notices(engine, retry_for=PATIENCE, first_delay=PAUSE, lease=LEASE, channels=tuple(Channel)) for _ in range(6)
    ]
    with ThreadPoolExecutor(6) as pool:
        recorded = list(pool.map(lambda each: each.record(completion(), NOW), others))

    assert sorted(recorded) == [False] * 5 + [True]
    assert channels(engine) == ["mail", "slack", "webhook"]


def test_a_change_of_one_channel_changes_no_other(engine: Engine, all_channels: Notices) -> None:
    all_channels.record(completion(), NOW)
    claimed = all_channels.claim(all_channels.find_due(NOW, Channel.WEBHOOK, limit=1)[0], NOW)
    assert claimed is not None
    assert all_channels.begin(claimed, "msg_1", NOW)
    assert all_channels.fail(claimed, "gone")

    with engine.connect() as connection:
        query = select(notices.c.channel, notices.c.state, notices.c.attempts).order_by(notices.c.channel)
        found = [tuple(each) for each in connection.execute(query)]
    assert found == [("mail", "pending", 0), ("slack", "pending", 0), ("webhook", "failed", 1)]
    assert all_channels.next_due() == {Channel.MAIL: NOW, Channel.SLACK: NOW}
    assert all_channels.count_open() == {Channel.MAIL: (1, NOW), Channel.SLACK: (1, NOW)}


def test_damage_in_one_channel_fails_no_other(engine: Engine, all_channels: Notices) -> None:
    all_channels.record(completion(), NOW)
    with engine.begin() as connection:
        connection.execute(update(notices).where(notices.c.channel == "webhook").values(attempts=-1))
        connection.execute(update(notices).where(notices.c.channel == "slack").values(channel="pager"))

    for channel in Channel:
        all_channels.find_due(NOW, channel, limit=9)

    with engine.connect() as connection:
        query = select(notices.c.channel, notices.c.state, notices.c.error).order_by(notices.c.channel)
        found = [tuple(each) for each in connection.execute(query)]
    assert found == [
        ("mail", "pending", None),
        ("pager", "failed", "channel names no channel of this version"),
        ("webhook", "failed", "attempts has no valid value"),
    ]
