"""The notices keep their promise on SQLite and on PostgreSQL, with several notifiers at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row, insert, make_url, select

from config.database import open_database
from config.events import ExportFinished, Status
from config.migrations import migrate
from config.tables import notices, outbox
from notify import missed
from notify.notices import Notice, Notices
from tests.services.postgres import Postgres
from tests.unit.notify.scenes import NOW, completion

LEASE = timedelta(seconds=60)
PAUSE = timedelta(seconds=5)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        opened = open_database(make_url(f"sqlite:///{tmp_path}/notices.db"))
        migrate(opened)
        yield opened
        opened.dispose()
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as database:
        opened = open_database(make_url(database.url).set(drivername="postgresql+psycopg"))
        migrate(opened)
        yield opened
        opened.dispose()


@pytest.fixture
def store(engine: Engine) -> Notices:
    return Notices(engine, max_attempts=3, first_pause=PAUSE, lease=LEASE)


def row(engine: Engine) -> Row[Any]:
    with engine.connect() as connection:
        return connection.execute(select(notices)).one()


def claim(store: Notices, now: datetime) -> Notice:
    claimed = store.claim(store.due(now, limit=1)[0], now)
    assert claimed is not None
    return claimed


def test_a_completion_becomes_a_notice_that_carries_it(engine: Engine, store: Notices) -> None:
    assert store.record(completion(), NOW)

    kept = row(engine)
    assert (kept.event_id, kept.channel, kept.export_id) == ("event-1", "mail", "export-1")
    assert (kept.attempt, kept.status, kept.state, kept.attempts) == (1, "COMPLETED", "pending", 0)
    assert (kept.created_at, kept.next_attempt_at) == (NOW, NOW)
    assert [ExportFinished.model_validate_json(each.payload) for each in store.due(NOW, limit=9)] == [completion()]


@pytest.mark.parametrize("again", [{}, {"rows": 5}, {"event_id": "event-2"}])
def test_the_same_ending_is_recorded_once(store: Notices, again: dict[str, Any]) -> None:
    assert store.record(completion(), NOW)

    assert not store.record(completion(**again), NOW)
    assert len(store.due(NOW, limit=9)) == 1


@pytest.mark.parametrize(
    "other",
    [{"event_id": "e2", "batch_export_id": "export-2"}, {"event_id": "e2", "attempt": 2}],
)
def test_another_ending_has_a_notice_of_its_own(store: Notices, other: dict[str, Any]) -> None:
    assert store.record(completion(status=Status.FAILED), NOW)

    assert store.record(completion(**other), NOW)


def test_many_at_once_record_one_and_claim_one(engine: Engine, store: Notices) -> None:
    others = [Notices(engine, max_attempts=3, first_pause=PAUSE, lease=LEASE) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        recorded = list(pool.map(lambda each: each.record(completion(), NOW), others))
        due = store.due(NOW, limit=1)[0]
        claimed = list(pool.map(lambda each: each.claim(due, NOW), others))

    assert sorted(recorded) == [False] * 5 + [True]
    assert sum(each is not None for each in claimed) == 1
    assert row(engine).attempts == 1


def test_a_claimed_notice_is_due_again_when_its_notifier_died(store: Notices) -> None:
    store.record(completion(), NOW)
    first = claim(store, NOW)

    assert store.due(NOW + LEASE - timedelta(seconds=1), limit=9) == []
    assert store.next_due() == NOW + LEASE
    second = claim(store, NOW + LEASE)
    assert (first.attempts, second.attempts) == (1, 2)


def test_a_beat_extends_the_lease(store: Notices) -> None:
    store.record(completion(), NOW)
    claimed = claim(store, NOW)

    assert store.beat(claimed, NOW + timedelta(seconds=10))

    assert store.due(NOW + LEASE, limit=9) == []
    assert len(store.due(NOW + LEASE + timedelta(seconds=10), limit=9)) == 1


def test_who_lost_the_lease_changes_nothing(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    zombie = claim(store, NOW)
    alive = claim(store, NOW + LEASE)

    assert not store.beat(zombie, NOW)
    assert not store.skip(zombie, "why")
    assert not store.fail(zombie, "why")
    assert not store.postpone(zombie, "why", NOW)
    assert row(engine).state == "sending"
    assert store.skip(alive, "nobody")
    assert (row(engine).state, row(engine).error, row(engine).next_attempt_at) == ("skipped", "nobody", None)


def test_a_mail_that_is_out_is_sent_whoever_says_so_and_once(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    zombie = claim(store, NOW)
    alive = claim(store, NOW + LEASE)

    assert store.sent(zombie, "<1@example.com>", NOW)

    assert not store.sent(alive, "<1@example.com>", NOW)
    assert not store.postpone(alive, "later", NOW)
    kept = row(engine)
    assert (kept.state, kept.message_id, kept.sent_at, kept.next_attempt_at) == ("sent", "<1@example.com>", NOW, None)
    assert store.due(NOW + timedelta(days=9), limit=9) == []
    assert store.next_due() is None


def test_a_postponed_notice_waits_twice_as_long_each_time(store: Notices) -> None:
    store.record(completion(), NOW)
    now = NOW
    for seconds in (5, 10):
        assert store.postpone(claim(store, now), "later", now)
        assert store.next_due() == now + timedelta(seconds=seconds)
        assert store.due(now + timedelta(seconds=seconds - 1), limit=9) == []
        now += timedelta(seconds=seconds)
    last = claim(store, now)

    assert store.is_last(last)
    assert store.fail(last, "later")


def test_the_longest_wait_is_an_hour(engine: Engine) -> None:
    patient = Notices(engine, max_attempts=99, first_pause=PAUSE, lease=LEASE)
    patient.record(completion(), NOW)
    now = NOW
    for _ in range(12):
        patient.postpone(claim(patient, now), "later", now)
        now = row(engine).next_attempt_at

    assert patient.postpone(claim(patient, now), "x" * 9_000, now)
    assert row(engine).next_attempt_at == now + timedelta(hours=1)
    assert len(row(engine).error) == 500


def test_a_notice_that_kills_its_notifiers_is_given_up(engine: Engine, store: Notices) -> None:
    store.record(completion(), NOW)
    now = NOW
    for _ in range(3):
        claim(store, now)
        now += LEASE
    due = store.due(now, limit=9)[0]

    assert store.claim(due, now) is None
    assert not store.abandon(due, now - timedelta(seconds=1))
    assert store.abandon(due, now)
    assert not store.abandon(due, now)
    assert row(engine).state == "failed"
    assert "died" in row(engine).error


def test_a_notice_with_attempts_left_is_not_given_up(store: Notices) -> None:
    store.record(completion(), NOW)

    assert not store.abandon(store.due(NOW, limit=1)[0], NOW)


def test_the_longest_due_are_named_first(store: Notices) -> None:
    for number in (2, 3, 1):
        event = completion(event_id=f"e{number}", batch_export_id=f"x{number}")
        store.record(event, NOW + timedelta(seconds=number))

    assert [each.event_id for each in store.due(NOW + timedelta(seconds=9), limit=2)] == ["e1", "e2"]


@pytest.mark.parametrize("text", ["reason with \x00 in it", "'; DROP TABLE waybill_notices; --", "日本 👩‍💻"])
def test_any_reason_in_an_event_is_kept(store: Notices, text: str) -> None:
    store.record(completion(status=Status.FAILED, error=text), NOW)

    assert ExportFinished.model_validate_json(store.due(NOW, limit=1)[0].payload).error == text


def test_completions_that_were_published_a_while_ago_are_found_again(engine: Engine) -> None:
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

    found = list(missed.published(engine, "export-completions", since=NOW - missed.LOOK_BACK, now=NOW))

    assert [each.event.event_id for each in found] == ["e2", "e1"]
    assert [each.published_at for each in found] == [NOW - timedelta(minutes=7), NOW - timedelta(minutes=6)]
