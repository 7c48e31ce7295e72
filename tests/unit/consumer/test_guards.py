from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.labels import Outcome, Verdict
from consumer.guards import (
    GUARDS,
    INTERNAL_TEXT,
    INVALID_ID_TEXT,
    INVALID_TIME_TEXT,
    STALE_TEXT,
    GuardPolicy,
    Reaction,
    Refusal,
    enabled,
    exists,
    judge,
)
from consumer.models import Job, Run
from tests.support.exports import NOW, QUERY, after

POLICY = GuardPolicy(enabled=True, stale_after=timedelta(days=30), max_attempts=3)


def a_run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "export_id": "export-1",
        "attempt": 1,
        "project_id": "project-1",
        "worker": "worker-a",
        "claimed_at": NOW,
        "heartbeat_at": NOW,
        "lease_until": after(60),
        "finished_at": None,
        "outcome": None,
        "failures": 0,
        "error_class": None,
        "error": None,
        "rows": 0,
        "bytes": 0,
        "object_key": None,
        "sha256": None,
        "truncated": False,
        "ignored": None,
        "stage": None,
        "next_attempt_at": None,
        "traceparent": None,
    }
    return Run(**values | changes)


def a_job(status: str = "QUEUED", run: Run | None = None, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "export-1",
        "project_id": "project-1",
        "user_id": "user-1",
        "name": "n",
        "format": "CSV",
        "query": QUERY,
        "created_at": NOW,
        "updated_at": NOW,
        "finished_at": None,
        "expires_at": None,
        "url": None,
        "log": None,
    }
    return Job(status=status, run=run, **values | changes)


def failed(attempt: int, failures: int, seconds: float = 0) -> Run:
    outcome = {"outcome": Outcome.RETRY, "finished_at": NOW, "next_attempt_at": after(seconds)}
    return a_run(attempt=attempt, failures=failures, **outcome)


@pytest.mark.parametrize(
    ("job", "verdict", "reaction"),
    [
        (a_job("CANCELLED"), Verdict.CANCELLED, Reaction.SKIP),
        (a_job("COMPLETED"), Verdict.FINISHED, Reaction.WARN),
        (a_job("FAILED"), Verdict.FINISHED, Reaction.WARN),
        (a_job(created_at=NOW - timedelta(days=31)), Verdict.STALE, Reaction.FAIL),
        (a_job("PROCESSING", a_run()), Verdict.RUNNING, Reaction.SKIP),
        (a_job("PROCESSING", a_run(failures=2, lease_until=NOW)), Verdict.EXHAUSTED, Reaction.FAIL),
        (a_job("QUEUED", failed(1, 0, 5)), Verdict.WAITING, Reaction.SKIP),
    ],
)
def test_each_guard_refuses_with_its_verdict_and_reaction(job: Job, verdict: Verdict, reaction: Reaction) -> None:
    refusal = judge(job, POLICY, NOW)

    assert refusal is not None
    assert (refusal.verdict, refusal.reaction) == (verdict, reaction)


@pytest.mark.parametrize(
    "job",
    [
        a_job(),
        a_job(created_at=NOW - timedelta(days=30)),
        a_job("PROCESSING"),
        a_job("PROCESSING", a_run(lease_until=NOW)),
        a_job("QUEUED", failed(2, 1)),
        a_job("QUEUED", a_run(outcome=Outcome.RELEASED, failures=2, finished_at=NOW, next_attempt_at=NOW)),
    ],
)
def test_an_export_that_no_guard_refuses_may_start(job: Job) -> None:
    assert judge(job, POLICY, NOW) is None


def test_a_disabled_consumer_refuses_every_export() -> None:
    assert enabled(POLICY) is None

    refusal = enabled(replace(POLICY, enabled=False))

    assert refusal is not None
    assert (refusal.verdict, refusal.reaction) == (Verdict.DISABLED, Reaction.DEAD_LETTER)


def test_an_export_without_a_row_is_refused() -> None:
    job = a_job()
    assert exists(job) is job

    refusal = exists(None)

    assert isinstance(refusal, Refusal)
    assert (refusal.verdict, refusal.reaction) == (Verdict.MISSING, Reaction.LOOK_AGAIN)


def test_a_cancelled_export_stays_cancelled_however_old_it_is() -> None:
    refusal = judge(a_job("CANCELLED", created_at=NOW - timedelta(days=99)), POLICY, NOW)

    assert refusal is not None
    assert refusal.verdict is Verdict.CANCELLED


def test_an_old_export_that_runs_is_left_to_run() -> None:
    refusal = judge(a_job("PROCESSING", a_run(), created_at=NOW - timedelta(days=99)), POLICY, NOW)

    assert refusal is not None
    assert refusal.verdict is Verdict.RUNNING


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": ""}, INVALID_ID_TEXT),
        ({"id": "x" * 513}, INVALID_ID_TEXT),
        ({"project_id": ""}, INVALID_ID_TEXT),
        ({"project_id": "a\0b"}, INVALID_ID_TEXT),
        ({"created_at": NOW + timedelta(days=1, seconds=1)}, INVALID_TIME_TEXT),
        ({"created_at": datetime(1969, 12, 31, tzinfo=UTC)}, INVALID_TIME_TEXT),
        ({"created_at": datetime.min.replace(tzinfo=UTC)}, INVALID_TIME_TEXT),
    ],
)
def test_an_export_that_can_have_no_end_is_failed_before_any_work(changes: dict[str, Any], text: str) -> None:
    refusal = judge(a_job(**changes), POLICY, NOW)

    assert refusal is not None
    assert (refusal.verdict, refusal.reaction, refusal.text) == (Verdict.INVALID, Reaction.FAIL, text)


def test_an_export_with_the_last_attempt_number_is_exhausted() -> None:
    refusal = judge(a_job(run=a_run(attempt=2**31 - 1, finished_at=NOW)), POLICY, NOW)

    assert refusal is not None
    assert refusal.verdict is Verdict.EXHAUSTED


def test_a_lease_and_a_next_attempt_that_are_days_away_are_damaged_and_count_as_past() -> None:
    last = datetime.max.replace(tzinfo=UTC)

    assert judge(a_job("PROCESSING", a_run(lease_until=last)), POLICY, NOW) is None
    assert judge(a_job(run=a_run(finished_at=NOW, outcome="retry", next_attempt_at=last)), POLICY, NOW) is None


def test_the_text_for_the_user_says_what_to_do() -> None:
    stale = judge(a_job(created_at=NOW - timedelta(days=31)), POLICY, NOW)
    exhausted = judge(a_job("PROCESSING", a_run(failures=2, lease_until=NOW)), POLICY, NOW)

    assert stale is not None
    assert exhausted is not None
    assert stale.text == STALE_TEXT
    assert "start it again" in STALE_TEXT
    assert exhausted.text == INTERNAL_TEXT == "An internal error occurred"


def test_the_guards_are_asked_in_the_published_order() -> None:
    assert [guard.__name__ for guard in (enabled, exists, *GUARDS)] == [
        "enabled",
        "exists",
        "not_cancelled",
        "not_finished",
        "dated",
        "fresh",
        "not_running",
        "identified",
        "not_exhausted",
        "due",
    ]
