import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from sqlalchemy import Engine, delete, make_url

from config.errors import Unavailable
from config.tables import application, batch_exports
from consumer.clock import DatabaseClock
from consumer.jobs import Jobs
from consumer.models import Job
from consumer.relay import relay
from consumer.sweeper import Sweeper
from pipeline.types import Progress
from runtime.database import open_database
from runtime.migrations import migrate
from tests.support.attempts import Stage
from tests.support.exports import LEASE, NOW, after, claimed, job_of, letters, queue, row_of, runs_of
from tests.support.intake import POLICY, Desk, Post


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def stage(engine: Engine, tmp_path: Path) -> Stage:
    made = Stage(engine, tmp_path / "files")
    made.time = after(120)
    return made


def sweeper_of(stage: Stage, desk: Desk) -> Sweeper:
    return Sweeper(
        bench=stage.bench,
        reception=desk.reception,
        clock=DatabaseClock(stage.engine),
        policy=POLICY,
        project_slots=0,
        unseen_for=timedelta(seconds=30),
    )


def sweep(stage: Stage, **changes: Any) -> tuple[Desk, Sweeper]:
    async def scene() -> tuple[Desk, Sweeper]:
        desk = Desk(stage.engine)
        sweeper = sweeper_of(stage, desk)
        for name, value in changes.items():
            setattr(sweeper, name, value)
        await sweeper.sweep()
        await desk.slots.drain(30, 0)
        return desk, sweeper

    return asyncio.run(scene())


def test_it_takes_up_what_it_has_slots_for_and_says_that_there_is_more(stage: Stage) -> None:
    for name in ("old", "older"):
        queue(stage.engine, name, created_at=NOW - timedelta(minutes=len(name)))

    desk, sweeper = sweep(stage)

    assert [claim.job.id for claim in desk.ran] == ["older"]
    assert sweeper.more
    assert desk.count("accepted") == 1


def test_it_takes_nothing_up_while_exports_are_disabled(stage: Stage) -> None:
    queue(stage.engine)

    desk, _ = sweep(stage, policy=POLICY.__class__(enabled=False, stale_after=timedelta(days=30), max_attempts=3))

    assert (desk.ran, runs_of(stage.engine)) == ([], [])


def leave_an_orphan(stage: Stage) -> None:
    """A worker that died after its file was there, of an export that the user cancelled then."""
    queue(stage.engine)
    claim = claimed(stage.jobs)
    bench = stage.bench
    spec = bench.spec_of(claim.job, 1)
    bench.export(spec, bench.sources, bench.storage, Progress(), bench.metrics, fence=lambda: None)
    stage.jobs.cancel(job_of(stage.jobs), after(1))


def test_it_clears_what_a_dead_worker_left_of_a_cancelled_export(stage: Stage) -> None:
    leave_an_orphan(stage)
    stage.time = NOW + LEASE - timedelta(seconds=1)
    sweep(stage)
    assert len(stage.files()) == 2

    stage.time = NOW + LEASE
    sweep(stage)

    assert stage.files() == []
    assert runs_of(stage.engine)[0]["outcome"] == "cancelled"
    assert row_of(stage.engine)["status"] == "CANCELLED"
    assert (stage.counted("cancelled"), stage.failures("lost")) == (1, 1)


def test_a_store_that_is_away_does_not_hold_up_the_sweep(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_an_orphan(stage)
    queue(stage.engine, "waiting")

    def away(*_: Any) -> int:
        raise Unavailable("the store is away")

    monkeypatch.setattr(stage.storage, "abort_uploads", away)

    desk, _ = sweep(stage)

    assert [claim.job.id for claim in desk.ran] == ["waiting"]
    assert runs_of(stage.engine)[0]["finished_at"] is None


def test_a_row_that_is_held_by_another_does_not_hold_up_the_sweep(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "older"):
        queue(stage.engine, name, created_at=NOW - timedelta(minutes=len(name)))
    claim = Jobs.claim

    def held(jobs: Jobs, job: Job, *rest: Any) -> Any:
        if job.id == "older":
            raise Unavailable("the row is locked")
        return claim(jobs, job, *rest)

    monkeypatch.setattr(Jobs, "claim", held)
    monkeypatch.setattr("tests.support.intake.SLOTS", 2)

    desk, _ = sweep(stage)

    assert [taken.job.id for taken in desk.ran] == ["old"]


def test_it_closes_the_run_of_a_dead_worker_whose_row_was_deleted(stage: Stage) -> None:
    queue(stage.engine)
    claimed(stage.jobs)
    with stage.engine.begin() as connection:
        connection.execute(delete(batch_exports))

    sweep(stage)

    assert runs_of(stage.engine)[0]["outcome"] == "cancelled"
    labels = {"outcome": "cancelled", "table": "other", "format": "other"}
    assert stage.metrics.registry.get_sample_value("waybill_exports_total", labels) == 1
    assert stage.failures("lost") == 1


def test_the_relay_publishes_in_order_and_marks_what_was_delivered(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        queue(stage.engine, name)
        stage.jobs.reject(claimed(stage.jobs, export_id=name), "no", NOW)
    post = Post(answers=[None, KafkaError(KafkaError._MSG_TIMED_OUT), None])

    with pytest.raises(Unavailable, match="1 events were not published"):
        relay(stage.engine, post, stage.now)  # type: ignore[arg-type] # stands in for Kafka
    assert [letter["published_at"] is None for letter in letters(stage.engine)] == [False, True, False]
    assert relay(stage.engine, post, stage.now) == 1  # type: ignore[arg-type] # the same

    assert [message.key for message in post.sent] == [b"a", b"b", b"c", b"b"]
    assert {message.topic for message in post.sent} == {"export-completions"}
    assert all(letter["published_at"] == stage.time for letter in letters(stage.engine))
