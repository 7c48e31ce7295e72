import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete

from config.errors import Unavailable
from config.tables import batch_exports
from consumer.job_store import Jobs
from consumer.models import Job
from consumer.sweeper import Sweeper
from pipeline.progress import Progress
from runtime.clock import DatabaseClock
from tests.support.attempts import ScriptedWorker
from tests.support.exports import LEASE, NOW, after, claimed, job_of, queue, row_of, runs_of
from tests.support.intake import POLICY, ScriptedIntake


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> ScriptedWorker:
    made = ScriptedWorker(engine, tmp_path / "files")
    made.time = after(120)
    return made


def sweeper_of(worker: ScriptedWorker, scripted: ScriptedIntake) -> Sweeper:
    return Sweeper(
        context=worker.context,
        intake=scripted.intake,
        clock=DatabaseClock(worker.engine),
        policy=POLICY,
        project_slots=0,
        unseen_for=timedelta(seconds=30),
    )


def sweep(worker: ScriptedWorker, **changes: Any) -> tuple[ScriptedIntake, Sweeper]:
    async def run() -> tuple[ScriptedIntake, Sweeper]:
        scripted = ScriptedIntake(worker.engine)
        sweeper = sweeper_of(worker, scripted)
        for name, value in changes.items():
            setattr(sweeper, name, value)
        await sweeper.sweep()
        await scripted.slots.drain(30, 0)
        return scripted, sweeper

    return asyncio.run(run())


def test_it_starts_as_many_exports_as_slots_are_free_and_says_that_there_are_more(worker: ScriptedWorker) -> None:
    for name in ("old", "older"):
        queue(worker.engine, name, created_at=NOW - timedelta(minutes=len(name)))

    scripted, sweeper = sweep(worker)

    assert [claim.job.id for claim in scripted.ran] == ["older"]
    assert sweeper.more
    assert scripted.count("accepted") == 1


def test_it_starts_nothing_while_exports_are_disabled(worker: ScriptedWorker) -> None:
    queue(worker.engine)

    scripted, _ = sweep(worker, policy=POLICY.__class__(enabled=False, stale_after=timedelta(days=30), max_attempts=3))

    assert (scripted.ran, runs_of(worker.engine)) == ([], [])


def leave_an_orphan(worker: ScriptedWorker) -> None:
    """Leave the files of a worker that died after its upload, of an export that was then cancelled."""
    queue(worker.engine)
    claim = claimed(worker.jobs)
    context = worker.context
    spec = context.read_spec(claim.job, 1)
    context.export(spec, context.sources, context.storage, Progress(), context.metrics, fence=lambda: None)
    worker.jobs.cancel(job_of(worker.jobs), after(1))


def test_it_deletes_the_files_that_a_dead_worker_left_of_a_cancelled_export(worker: ScriptedWorker) -> None:
    leave_an_orphan(worker)
    worker.time = NOW + LEASE - timedelta(seconds=1)
    sweep(worker)
    assert len(worker.files()) == 2

    worker.time = NOW + LEASE
    sweep(worker)

    assert worker.files() == []
    assert runs_of(worker.engine)[0]["outcome"] == "cancelled"
    assert row_of(worker.engine)["status"] == "CANCELLED"
    assert (worker.counted("cancelled"), worker.failures("lost")) == (1, 1)


def test_an_unavailable_store_does_not_block_the_sweep(worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_an_orphan(worker)
    queue(worker.engine, "waiting")

    def unavailable(*_: Any) -> int:
        raise Unavailable("the store is unavailable")

    monkeypatch.setattr(worker.storage, "abort_uploads", unavailable)

    scripted, _ = sweep(worker)

    assert [claim.job.id for claim in scripted.ran] == ["waiting"]
    assert runs_of(worker.engine)[0]["finished_at"] is None


def test_a_locked_row_does_not_block_the_sweep(worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "older"):
        queue(worker.engine, name, created_at=NOW - timedelta(minutes=len(name)))
    claim = Jobs.claim

    def claim_unless_locked(jobs: Jobs, job: Job, *rest: Any) -> Any:
        if job.id == "older":
            raise Unavailable("the row is locked")
        return claim(jobs, job, *rest)

    monkeypatch.setattr(Jobs, "claim", claim_unless_locked)
    monkeypatch.setattr("tests.support.intake.SLOTS", 2)

    scripted, _ = sweep(worker)

    assert [taken.job.id for taken in scripted.ran] == ["old"]


def test_it_closes_the_run_of_a_dead_worker_whose_row_was_deleted(worker: ScriptedWorker) -> None:
    queue(worker.engine)
    claimed(worker.jobs)
    with worker.engine.begin() as connection:
        connection.execute(delete(batch_exports))

    sweep(worker)

    assert runs_of(worker.engine)[0]["outcome"] == "cancelled"
    labels = {"outcome": "cancelled", "table": "other", "format": "other"}
    assert worker.metrics.registry.get_sample_value("waybill_exports_total", labels) == 1
    assert worker.failures("lost") == 1
