from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from config.errors import Rejected, Unavailable
from config.labels import Outcome
from config.tables import batch_exports
from consumer import outbox
from consumer.cleanup import KEEP_PUBLISHED, Cleanup
from consumer.models import Claim
from pipeline.object_key import manifest_key
from pipeline.storage.types import Upload
from tests.support.attempts import ScriptedWorker
from tests.support.exports import LEASE, NOW, after, claimed, job_of, outbox_rows, queue, result_of, runs_of, set_status

HISTORY = timedelta(days=4000)


class WorkerWithOrphans(ScriptedWorker):
    """Has uploads that workers began and did not finish."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine, folder)
        self.uploads: list[Upload] = []

    def leave(self, key: str) -> None:
        upload = self.storage.open(key, "text/csv", 1)
        upload.__enter__().write(b"half")
        self.uploads.append(upload)

    def leave_half_of(self, claim: Claim, *, former: bool = False) -> None:
        spec = self.context.read_spec(claim.job, claim.attempt)
        self.leave(spec.former_key if former else spec.key)


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
        link_lifetime=timedelta(hours=24),
        history=HISTORY,
    )


def long_after(worker: WorkerWithOrphans) -> None:
    """Set the time so late that all leases and uploads are old."""
    worker.time = NOW + timedelta(days=3650)


@pytest.mark.parametrize("former", [False, True], ids=["", "former name"])
@pytest.mark.parametrize("ending", ["completed", "cancelled", "queued again", "deleted"])
def test_uploads_of_a_dead_worker_are_aborted_in_every_state_of_the_export(
    worker: WorkerWithOrphans, ending: str, former: bool
) -> None:
    queue(worker.engine)
    worker.leave_half_of(claimed(worker.jobs), former=former)
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
    others = (
        "17-unknown-lf-traces-export-project-1.csv",
        "17-alive-lf-traces-export-other.csv",
        "17-lf-traces-export-project-1-unknown.csv",
        "17-lf-traces-export-other-alive.csv",
        "notes.csv",
    )
    for name in others:
        worker.leave(f"exports/{name}")

    cleanup_of(worker).abort_orphans()
    assert len(worker.files()) == 6

    worker.time += LEASE
    cleanup_of(worker).abort_orphans()
    assert len(worker.files()) == 5
    assert not [name for name in worker.files() if "alive-lf-traces-export-project-1" in name]


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


@pytest.mark.parametrize("ending", ["cancelled", "deleted"])
def test_files_of_exports_that_were_cancelled_or_deleted_afterwards_are_deleted_when_their_link_would_expire(
    worker: WorkerWithOrphans, ending: str
) -> None:
    queue(worker.engine)
    assert worker.run(claimed(worker.jobs)) is Outcome.COMPLETED
    if ending == "cancelled":
        set_status(worker.engine, "CANCELLED")
    else:
        with worker.engine.begin() as connection:
            connection.execute(delete(batch_exports))
    cleanup_of(worker, delete_expired=True).delete_files()
    assert len(worker.files()) == 2
    worker.time = NOW + timedelta(hours=24)

    cleanup_of(worker, delete_expired=True).delete_files()

    assert worker.files() == []


def test_a_file_that_can_not_be_deleted_holds_up_no_other(
    worker: WorkerWithOrphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kept", "other"):
        queue(worker.engine, name)
        worker.run(claimed(worker.jobs, export_id=name))
    delete_file = worker.storage.delete

    def delete_unless_kept(key: str, attempt: int) -> None:
        if "kept" in key:
            raise Unavailable("access denied")
        delete_file(key, attempt)

    monkeypatch.setattr(worker.storage, "delete", delete_unless_kept)
    worker.time = NOW + timedelta(hours=24)

    cleanup_of(worker, delete_expired=True).delete_files()

    assert all("kept" in name for name in worker.files())


def test_runs_that_ended_before_the_history_are_deleted_unless_a_file_is_still_to_be_deleted(
    worker: WorkerWithOrphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.cleanup.PRUNE_BATCH", 2)
    for name in ("with-file", "a", "b", "c"):
        queue(worker.engine, name)
        worker.raises = None if name == "with-file" else Rejected("no")
        worker.run(claimed(worker.jobs, export_id=name))
    queue(worker.engine, "open")
    claimed(worker.jobs, export_id="open")
    worker.time = NOW + HISTORY
    cleanup_of(worker).prune()
    assert [len(runs_of(worker.engine, name)) for name in ("with-file", "a", "b", "c", "open")] == [1, 1, 1, 1, 1]
    worker.time += timedelta(seconds=1)

    cleanup_of(worker, delete_expired=True).prune()
    assert [len(runs_of(worker.engine, name)) for name in ("with-file", "a", "b", "c", "open")] == [1, 0, 0, 0, 1]
    cleanup_of(worker).prune()
    assert [len(runs_of(worker.engine, name)) for name in ("with-file", "open")] == [0, 1]


def test_files_of_expired_exports_are_deleted_under_the_name_that_an_earlier_version_gave_them(
    worker: WorkerWithOrphans,
) -> None:
    queue(worker.engine)
    claim = claimed(worker.jobs)
    key = worker.context.read_spec(claim.job, 1).former_key
    for each in (key, manifest_key(key)):
        with worker.storage.open(each, "text/csv", 1) as upload:
            upload.write(b"old")
            upload.finish()
    worker.jobs.complete(claim, result_of(key), url="https://store", expires_at=after(3600), now=NOW)
    worker.time = NOW + timedelta(hours=24)

    cleanup_of(worker, delete_expired=True).delete_files()

    assert (worker.files(), completed_keys(worker)) == ([], [None])


def test_old_published_events_are_deleted_and_waiting_ones_are_not(
    worker: WorkerWithOrphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.cleanup.PRUNE_BATCH", 2)
    for name in "abcdef":
        queue(worker.engine, name)
        worker.jobs.reject(claimed(worker.jobs, export_id=name), "no", NOW)
    ids = [letter["id"] for letter in outbox_rows(worker.engine)]
    outbox.mark_published(worker.engine, ids[:4], NOW)
    outbox.mark_published(worker.engine, ids[4:5], after(1))

    worker.time = after(0.5) + KEEP_PUBLISHED
    cleanup_of(worker).prune()

    assert [letter["key"] for letter in outbox_rows(worker.engine)] == ["e", "f"]
