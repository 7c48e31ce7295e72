from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, make_url

from config.labels import Outcome
from config.tables import application, batch_exports
from consumer import outbox
from consumer.cleanup import PUBLISHED_FOR, Upkeep, exports_of
from consumer.models import Claim
from pipeline.storage.types import Upload
from runtime.database import open_database
from runtime.migrations import migrate
from tests.support.attempts import Stage
from tests.support.exports import LEASE, NOW, after, claimed, job_of, letters, queue, runs_of, set_status


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(opened)
    migrate(opened)
    yield opened
    opened.dispose()


class Deserted(Stage):
    """A stage that workers left in mid-upload."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__(engine, folder)
        self.uploads: list[Upload] = []

    def leave(self, key: str) -> None:
        upload = self.storage.open(key, "text/csv", 1)
        upload.__enter__().write(b"half")
        self.uploads.append(upload)

    def leave_half_of(self, claim: Claim) -> None:
        self.leave(self.bench.spec_of(claim.job, claim.attempt).key)


@pytest.fixture
def stage(engine: Engine, tmp_path: Path) -> Iterator[Deserted]:
    made = Deserted(engine, tmp_path / "files")
    yield made
    for upload in made.uploads:
        upload.abort()


def upkeep_of(stage: Deserted, *, delete_expired: bool = False) -> Upkeep:
    return Upkeep(bench=stage.bench, prefix="exports/", delete_expired=delete_expired)


def long_after(stage: Deserted) -> None:
    """Let the clocks of leases and of files say that all of it was long ago."""
    stage.time = NOW + timedelta(days=3650)


@pytest.mark.parametrize("ending", ["completed", "cancelled", "queued again", "deleted"])
def test_what_a_dead_worker_left_is_aborted_whatever_became_of_its_export(stage: Deserted, ending: str) -> None:
    queue(stage.engine)
    stage.leave_half_of(claimed(stage.jobs))
    stage.time = NOW + LEASE
    match ending:
        case "completed":
            stage.jobs.reject(claimed(stage.jobs, stage.time), "no", stage.time)
            set_status(stage.engine, "COMPLETED")
        case "cancelled":
            stage.jobs.cancel(job_of(stage.jobs), stage.time)
        case "deleted":
            with stage.engine.begin() as connection:
                connection.execute(delete(batch_exports))
    assert len(stage.files()) == 1
    long_after(stage)

    upkeep_of(stage).abort_abandoned()

    assert stage.files() == []


def test_uploads_of_the_living_and_of_the_unknown_stay(stage: Deserted) -> None:
    queue(stage.engine, "alive")
    long_after(stage)
    alive = claimed(stage.jobs, stage.time, export_id="alive")
    stage.leave_half_of(alive)
    for name in ("17-lf-traces-export-project-1-unknown.csv", "17-lf-traces-export-other-alive.csv", "notes.csv"):
        stage.leave(f"exports/{name}")

    upkeep_of(stage).abort_abandoned()
    assert len(stage.files()) == 4

    stage.time += LEASE
    upkeep_of(stage).abort_abandoned()
    assert len(stage.files()) == 3
    assert not [name for name in stage.files() if "project-1-alive" in name]


def test_an_upload_that_began_within_a_lease_stays(stage: Deserted) -> None:
    queue(stage.engine)
    stage.leave_half_of(claimed(stage.jobs))
    stage.time = NOW - timedelta(days=3650)
    upkeep_of(stage).abort_abandoned()
    assert len(stage.files()) == 1


def test_a_key_names_the_exports_that_it_may_be_of() -> None:
    assert exports_of("a/b/17-lf-traces-export-p%2F1-x-y.csv.gz") == {"x-y": "p/1", "y": "p/1-x"}
    assert exports_of("17-lf-audit_logs-export-p-e.parquet.manifest.json") == {"e": "p"}
    assert exports_of("17-lf-traces-export-p-e.exe") == exports_of("notes.csv") == exports_of("") == {}


def completed_keys(stage: Deserted) -> list[str | None]:
    return [run["object_key"] for run in runs_of(stage.engine)]


def test_files_of_expired_exports_are_deleted_once_if_that_is_wanted(stage: Deserted) -> None:
    queue(stage.engine)
    claim = claimed(stage.jobs)
    key = stage.bench.spec_of(claim.job, 1).key
    assert stage.run(claim) is Outcome.COMPLETED
    stage.time = NOW + timedelta(hours=24) - timedelta(seconds=1)
    upkeep_of(stage, delete_expired=True).delete_files()
    stage.time = NOW + timedelta(hours=24)
    upkeep_of(stage).delete_files()
    assert (len(stage.files()), completed_keys(stage)) == (2, [key])

    upkeep_of(stage, delete_expired=True).delete_files()

    assert (stage.files(), completed_keys(stage)) == ([], [None])


def test_events_published_long_ago_are_deleted_and_those_that_wait_are_not(
    stage: Deserted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PRUNED_AT_ONCE", 2)
    for name in "abcdef":
        queue(stage.engine, name)
        stage.jobs.reject(claimed(stage.jobs, export_id=name), "no", NOW)
    ids = [letter["id"] for letter in letters(stage.engine)]
    outbox.mark_published(stage.engine, ids[:4], NOW)
    outbox.mark_published(stage.engine, ids[4:5], after(1))

    stage.time = after(0.5) + PUBLISHED_FOR
    upkeep_of(stage).prune()

    assert [letter["key"] for letter in letters(stage.engine)] == ["e", "f"]


def test_an_outbox_is_full_when_so_many_events_wait(stage: Deserted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FULL", 2)
    full = []
    for name in "ab":
        full.append(outbox.is_full(stage.engine))
        queue(stage.engine, name)
        stage.jobs.reject(claimed(stage.jobs, export_id=name), "no", NOW)
    assert [*full, outbox.is_full(stage.engine)] == [False, False, True]
    outbox.mark_published(stage.engine, [letters(stage.engine)[0]["id"]], NOW)
    assert not outbox.is_full(stage.engine)
