"""Leases and ages are computed with the database's clock, not with the pod's."""

from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from sqlalchemy import Engine, text

from config.labels import Verdict
from consumer.guards import GuardPolicy, judge
from consumer.job_store import Jobs
from runtime import clock as clock_module
from runtime.clock import DatabaseClock
from tests.support.exports import CLAIM_POLICY, claimed, job_of, queue

POLICY = GuardPolicy(enabled=True, stale_after=timedelta(minutes=30), max_attempts=3)
ABOUT = timedelta(seconds=20)


def set_this_machine_off(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    class Off(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Off":
            return datetime.now(tz) + by  # type: ignore[return-value] # the same

    monkeypatch.setattr(clock_module, "datetime", Off)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_pod_with_a_wrong_clock_decides_as_the_others_do(
    postgres_engine: Engine, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    jobs = Jobs(postgres_engine, CLAIM_POLICY)
    right = DatabaseClock(postgres_engine)
    right.compare()
    queue(postgres_engine, created_at=right.now())
    claimed(jobs, right.now())

    set_this_machine_off(monkeypatch, timedelta(hours=hours))
    off = DatabaseClock(postgres_engine)
    assert abs(off.compare() - timedelta(hours=hours)) < ABOUT
    with postgres_engine.connect() as connection:
        theirs: datetime = connection.scalar(text("SELECT clock_timestamp()"))
    assert abs(off.now() - theirs.astimezone(UTC)) < ABOUT

    refusal = judge(job_of(jobs), POLICY, off.now())
    assert refusal is not None
    assert refusal.verdict is Verdict.RUNNING
    queue(postgres_engine, "fresh", created_at=theirs.astimezone(UTC))
    assert judge(job_of(jobs, "fresh"), POLICY, off.now()) is None
    claim = claimed(jobs, off.now(), export_id="fresh")
    lease = job_of(jobs, "fresh").run
    assert lease is not None
    assert abs(lease.lease_until - CLAIM_POLICY.lease - theirs.astimezone(UTC)) < ABOUT
    assert claim.claimed_at == lease.claimed_at
