from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from config.labels import Outcome
from config.tables import batch_exports
from consumer import outbox
from consumer.cleanup import KEEP_PUBLISHED, Cleanup
from consumer.models import Claim
from pipeline.storage.types import Upload
from tests.support.attempts import ScriptedWorker
from tests.support.exports import LEASE, NOW, after, claimed, job_of, outbox_rows, queue, runs_of, set_status


class WorkerWithOrphans(ScriptedWorker):
    """Has uploads that workers began and did not finish."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine, folder)
        self.uploads: list[Upload] = []

    def leave(self, key: str) -> None:
        upload = self.storage.open(key, "text/csv", 1)
        upload.__enter__().write(b"half")
        self.uploads.append(upload)

    def leave_half_of(self, claim: Claim) -> None:
        self.leave(self.context.read_spec(claim.job, claim.attempt).key)


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> Iterator[WorkerWithOrphans]:
    made = WorkerWithOrphans(engine, tmp_path / "files")
    yield made
    for upload in made.uploads:
        upload.abort()


def cleanup_of(worker: WorkerWithOrphans, *, delete_expired: bool = False) -> Cleanup:
    return Cleanup(
        jobs=worker.jobs,
        storage=worker.storage,
        now=worker.now,
        lease=LEASE,
        prefix="exports/",
        delete_expired=delete_expired,
    )


def long_after(worker: WorkerWithOrphans) -> None:
    """Set the time so late that all leases and uploads are old."""
    worker.time = NOW + timedelta(days=3650)


@pytest.mark.parametrize("ending", ["completed", "cancelled", "queued again", "deleted"])
def test_uploads_of_a_dead_worker_are_aborted_in_every_state_of_the_export(
    worker: WorkerWithOrphans, ending: str
) -> None:
    queue(worker.engine)
    worker.leave_half_of(claimed(worker.jobs))
    worker.time = NOW + LEASE
    match ending:
        case "completed":
            worker.jobs.reject(claimed(worker.jobs, worker.time), "no", worker.time)
            set_status(worker.engine, "COMPLETED")
        case "cancelled":
            worker.jobs.cancel(job_of(worker.jobs), worker.time)
        case "deleted":
            with worker.engine.begin() as connection:
                connection.execute(delete(batch_exports))
    assert len(worker.files()) == 1
    long_after(worker)

    cleanup_of(worker).abort_orphans()

    assert worker.files() == []


def test_uploads_of_live_workers_and_of_unknown_exports_stay(worker: WorkerWithOrphans) -> None:
    queue(worker.engine, "alive")
    long_after(worker)
    alive = claimed(worker.jobs, worker.time, export_id="alive")
    worker.leave_half_of(alive)
    for name in ("17-lf-traces-export-project-1-unknown.csv", "17-lf-traces-export-other-alive.csv", "notes.csv"):
        worker.leave(f"exports/{name}")

    cleanup_of(worker).abort_orphans()
    assert len(worker.files()) == 4

    worker.time += LEASE
    cleanup_of(worker).abort_orphans()
    assert len(worker.files()) == 3
    assert not [name for name in worker.files() if "project-1-alive" in name]


def test_an_upload_that_began_within_the_last_lease_stays(worker: WorkerWithOrphans) -> None:
    queue(worker.engine)
    worker.leave_half_of(claimed(worker.jobs))
    worker.time = NOW - timedelta(days=3650)
    cleanup_of(worker).abort_orphans()
    assert len(worker.files()) == 1


def completed_keys(worker: WorkerWithOrphans) -> list[str | None]:
    return [run["object_key"] for run in runs_of(worker.engine)]


def test_files_of_expired_exports_are_deleted_if_the_setting_is_on(worker: WorkerWithOrphans) -> None:
    queue(worker.engine)
    claim = claimed(worker.jobs)
    key = worker.context.read_spec(claim.job, 1).key
    assert worker.run(claim) is Outcome.COMPLETED
    worker.time = NOW + timedelta(hours=24) - timedelta(seconds=1)
    cleanup_of(worker, delete_expired=True).delete_files()
    worker.time = NOW + timedelta(hours=24)
    cleanup_of(worker).delete_files()
    assert (len(worker.files()), completed_keys(worker)) == (2, [key])

    cleanup_of(worker, delete_expired=True).delete_files()

    assert (worker.files(), completed_keys(worker)) == ([], [None])


def test_old_published_events_are_deleted_and_waiting_ones_are_not(
    worker: WorkerWithOrphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PRUNE_BATCH", 2)
    for name in "abcdef":
        queue(worker.engine, name)
        worker.jobs.reject(claimed(worker.jobs, export_id=name), "no", NOW)
    ids = [letter["id"] for letter in outbox_rows(worker.engine)]
    outbox.mark_published(worker.engine, ids[:4], NOW)
    outbox.mark_published(worker.engine, ids[4:5], after(1))

    worker.time = after(0.5) + KEEP_PUBLISHED
    cleanup_of(worker).prune()

    assert [letter["key"] for letter in outbox_rows(worker.engine)] == ["e", "f"]
