from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import delete, make_url

from config.errors import Cancelled, Rejected, Unavailable
from config.labels import Outcome
from config.tables import application, batch_exports
from consumer.attempt import UNAVAILABLE_TEXT, run_claim
from consumer.models import Claim
from pipeline.types import Progress
from runtime.database import open_database
from runtime.migrations import migrate
from runtime.tracing import Tracer
from tests.support.attempts import RULES, Stage
from tests.support.exports import LEASE, NOW, claimed, job_of, letters, queue, row_of, runs_of


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(engine)
    migrate(engine)
    queue(engine)
    yield Stage(engine, tmp_path / "files")
    engine.dispose()


def test_a_finished_export_is_completed_with_its_link(stage: Stage) -> None:
    assert stage.run(claimed(stage.jobs)) is Outcome.COMPLETED

    row = row_of(stage.engine)
    assert row["status"] == "COMPLETED"
    assert row["url"].startswith("file://")
    assert row["expires_at"] == NOW + timedelta(hours=24)
    assert len(stage.files()) == 2
    assert stage.counted("completed") == 1
    assert stage.metrics.registry.get_sample_value("waybill_rows_total", {"table": "traces", "format": "CSV"}) == 3
    stored = stage.metrics.registry.get_sample_value("waybill_bytes_total", {"kind": "stored", "format": "CSV"})
    assert stored == 100


def test_a_query_that_can_not_be_read_is_rejected_at_once(stage: Stage) -> None:
    queue(stage.engine, "bad", query={"tableName": None})

    assert stage.run(claimed(stage.jobs, export_id="bad")) is Outcome.REJECTED

    assert row_of(stage.engine, "bad")["status"] == "FAILED"
    assert row_of(stage.engine, "bad")["log"].startswith("The query can't be read: tableName")
    assert stage.failures("rejected") == 1


@pytest.mark.parametrize(
    ("error", "words", "kept", "kind"),
    [
        (Unavailable("the store is away"), UNAVAILABLE_TEXT, "the store is away", "unavailable"),
        (KeyError("x"), "An internal error occurred", "KeyError: 'x'", "bug"),
    ],
)
def test_failures_are_tried_again_with_growing_pauses_and_end(
    stage: Stage, error: Exception, words: str, kept: str, kind: str
) -> None:
    stage.raises = error

    assert stage.run(claimed(stage.jobs)) is Outcome.RETRY
    assert (row_of(stage.engine)["status"], row_of(stage.engine)["log"]) == ("QUEUED", None)
    assert runs_of(stage.engine)[0]["next_attempt_at"] == NOW + timedelta(seconds=5)
    assert stage.run(claimed(stage.jobs)) is Outcome.RETRY
    assert runs_of(stage.engine)[1]["next_attempt_at"] == NOW + timedelta(seconds=10)
    assert letters(stage.engine) == []
    assert stage.run(claimed(stage.jobs)) is Outcome.FAILED

    assert (row_of(stage.engine)["status"], row_of(stage.engine)["log"]) == ("FAILED", words)
    assert [(run["error"], run["error_class"]) for run in runs_of(stage.engine)] == [(kept, kind)] * 3
    assert len(letters(stage.engine)) == 1
    assert (stage.counted("retry"), stage.counted("failed"), stage.failures(kind)) == (2, 1, 3)


def test_a_rejection_in_the_pipeline_ends_it_with_its_words(stage: Stage) -> None:
    stage.raises = Rejected("The column 'x' is unknown.")

    assert stage.run(claimed(stage.jobs)) is Outcome.REJECTED
    assert row_of(stage.engine)["log"] == "The column 'x' is unknown."


def test_a_cancel_that_comes_before_completion_wins_and_takes_the_file_away(stage: Stage) -> None:
    stage.before = lambda: stage.jobs.cancel(job_of(stage.jobs), NOW)

    assert stage.run(claimed(stage.jobs)) is Outcome.CANCELLED

    assert row_of(stage.engine)["status"] == "CANCELLED"
    assert (stage.files(), letters(stage.engine)) == ([], [])
    assert runs_of(stage.engine)[0]["outcome"] == "cancelled"


def test_an_export_whose_row_is_deleted_leaves_neither_a_file_nor_an_open_run(stage: Stage) -> None:
    def forget() -> None:
        with stage.engine.begin() as connection:
            connection.execute(delete(batch_exports))

    stage.before = forget

    assert stage.run(claimed(stage.jobs)) is Outcome.CANCELLED

    assert (stage.files(), letters(stage.engine)) == ([], [])
    assert runs_of(stage.engine)[0]["outcome"] == "cancelled"


def test_a_file_that_can_not_be_taken_away_yet_is_left_to_the_sweeper(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.before = lambda: stage.jobs.cancel(job_of(stage.jobs), NOW)

    def away(_: str) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(stage.storage, "delete", away)
    monkeypatch.setattr("consumer.attempt.FIRST_PAUSE", 0.01)
    stage.rules = replace(RULES, lease=timedelta(seconds=0.05))

    assert stage.run(claimed(stage.jobs)) is None

    assert runs_of(stage.engine)[0]["finished_at"] is None


def test_a_worker_that_stops_gives_the_export_back(stage: Stage) -> None:
    stage.raises = Cancelled()

    assert stage.run(claimed(stage.jobs)) is Outcome.RELEASED

    assert row_of(stage.engine)["status"] == "QUEUED"
    assert runs_of(stage.engine)[0]["next_attempt_at"] == NOW


def test_what_stalled_is_tried_again_with_the_reason_on_its_run(stage: Stage) -> None:
    stage.raises = Cancelled()
    progress = Progress()
    progress.stall()

    assert run_claim(claimed(stage.jobs), stage.bench, progress) is Outcome.RETRY

    (run,) = runs_of(stage.engine)
    assert (run["error_class"], row_of(stage.engine)["status"]) == ("stalled", "QUEUED")
    assert run["error"].startswith("stalled: for too long no row was read")


def overtake(stage: Stage) -> None:
    stage.time = NOW + LEASE
    claimed(stage.jobs, stage.time, worker="worker-b")


def test_a_zombie_leaves_the_file_to_the_attempt_that_runs_now(stage: Stage) -> None:
    stage.before = lambda: overtake(stage)

    assert stage.run(claimed(stage.jobs)) is None

    assert row_of(stage.engine)["status"] == "PROCESSING"
    assert len(stage.files()) == 2
    assert letters(stage.engine) == []


def test_a_zombie_is_stopped_right_before_its_file_would_be_seen(stage: Stage) -> None:
    stage.fenced = True
    stage.before = lambda: overtake(stage)

    assert stage.run(claimed(stage.jobs)) is None

    assert stage.files() == []


def test_a_zombie_takes_its_file_away_when_the_export_has_failed(stage: Stage) -> None:
    def overtake_and_fail() -> None:
        stage.time = NOW + LEASE
        stage.jobs.reject(claimed(stage.jobs, stage.time, worker="worker-b"), "no", stage.time)

    stage.before = overtake_and_fail

    assert stage.run(claimed(stage.jobs)) is None

    assert row_of(stage.engine)["status"] == "FAILED"
    assert stage.files() == []


def test_what_a_dead_attempt_left_is_gone_when_the_export_fails(stage: Stage) -> None:
    dead = claimed(stage.jobs)
    bench = stage.bench
    bench.export(
        bench.spec_of(dead.job, 1), bench.sources, stage.storage, Progress(), stage.metrics, fence=lambda: None
    )
    assert len(stage.files()) == 2
    stage.time = NOW + LEASE
    stage.raises = Rejected("no")

    assert stage.run(claimed(stage.jobs, stage.time)) is Outcome.REJECTED

    assert stage.files() == []


def test_an_ending_waits_for_a_database_that_is_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, tries = stage.jobs.complete, []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("the database is away")
        return complete(*args, **kwargs)

    monkeypatch.setattr(stage.jobs, "complete", flaky)
    monkeypatch.setattr("consumer.attempt.FIRST_PAUSE", 0.01)

    assert stage.run(claimed(stage.jobs)) is Outcome.COMPLETED
    assert (len(tries), stage.counted("completed")) == (3, 1)


def test_an_ending_that_meets_a_bug_is_a_log_line_and_not_an_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(stage.jobs, "complete", broken)

    assert stage.run(claimed(stage.jobs)) is None

    assert "could not be written" in caplog.text
    assert row_of(stage.engine)["status"] == "PROCESSING"


def test_an_ending_is_given_up_when_the_lease_must_be_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(stage.jobs, "complete", away)
    monkeypatch.setattr("consumer.attempt.FIRST_PAUSE", 0.01)
    stage.rules = replace(RULES, lease=timedelta(seconds=0.05))

    assert stage.run(claimed(stage.jobs)) is None


def test_an_export_is_a_span_of_the_trace_that_asked_for_it(stage: Stage) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stage.tracer = Tracer(provider.get_tracer("test"))
    claim = replace(claimed(stage.jobs), traceparent=f"00-{'a' * 32}-{'b' * 16}-01")

    assert stage.run(claim) is Outcome.COMPLETED

    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert (span.name, f"{span.context.trace_id:032x}") == ("export", "a" * 32)
    assert span.attributes is not None
    assert span.attributes["waybill.export_id"] == "export-1"
    assert span.attributes["waybill.outcome"] == "completed"
    assert [event.name for event in span.events] == ["read", "upload"]
    (letter,) = letters(stage.engine)
    assert letter["traceparent"] == f"00-{'a' * 32}-{span.context.span_id:016x}-01"


def test_a_later_attempt_belongs_to_the_trace_of_the_first(stage: Stage) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    first = stage.jobs.claim(job_of(stage.jobs), "worker-a", NOW, traceparent)
    assert isinstance(first, Claim)
    stage.jobs.release(first, NOW)

    second = claimed(stage.jobs)

    assert second.traceparent == traceparent
    assert second.log_context()["trace_id"] == "a" * 32
