import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Engine, delete

from config.errors import Cancelled, Rejected, Unavailable
from config.labels import Outcome
from config.links import Links
from config.tables import batch_exports
from consumer import outbox
from consumer.attempt import UNAVAILABLE_TEXT, run_attempt
from consumer.models import Claim
from consumer.row_url import LinkPolicy
from pipeline.object_key import manifest_key
from pipeline.progress import Progress
from pipeline.spec import ExportSpec
from pipeline.storage.types import Upload
from pipeline.types import ExportResult
from runtime.retry import Backoff
from runtime.tracing import Tracer
from tests.support.attempts import EXPORT_POLICY, ScriptedWorker
from tests.support.exports import LEASE, NOW, claimed, job_of, outbox_rows, queue, row_of, runs_of


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> ScriptedWorker:
    queue(engine)
    return ScriptedWorker(engine, tmp_path / "files")


def test_a_finished_export_is_completed_with_its_link(worker: ScriptedWorker) -> None:
    assert worker.run(claimed(worker.jobs)) is Outcome.COMPLETED

    row = row_of(worker.engine)
    assert row["status"] == "COMPLETED"
    assert row["url"].startswith("file://")
    assert row["expires_at"] == NOW + timedelta(hours=24)
    assert len(worker.files()) == 2
    assert worker.counted("completed") == 1
    assert worker.metrics.registry.get_sample_value("waybill_rows_total", {"table": "traces", "format": "CSV"}) == 3
    stored = worker.metrics.registry.get_sample_value("waybill_bytes_total", {"kind": "stored", "format": "CSV"})
    assert stored == 100


@pytest.mark.parametrize(("days", "start"), [(7, "file://"), (30, "https://exports.example.com/d/")])
def test_the_row_has_our_own_link_if_no_signed_url_is_valid_long_enough(
    worker: ScriptedWorker, days: int, start: str
) -> None:
    links = LinkPolicy(lifetime=timedelta(days=days), own=Links("https://exports.example.com", [b"k" * 32]))
    worker.policy = replace(worker.policy, links=links)

    assert worker.run(claimed(worker.jobs)) is Outcome.COMPLETED

    row = row_of(worker.engine)
    assert row["url"].startswith(start)
    assert row["expires_at"] == NOW + timedelta(days=days)


@pytest.mark.parametrize("raises", [None, Rejected("the bucket is gone")])
def test_the_log_line_of_an_end_has_table_format_rows_and_bytes(
    worker: ScriptedWorker, raises: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    worker.raises = raises
    progress = Progress()
    progress.rows, progress.bytes = 3, 100

    with caplog.at_level("INFO", "consumer.attempt"):
        outcome = run_attempt(claimed(worker.jobs), worker.context, progress)

    (line,) = (vars(record) for record in caplog.records if record.message.startswith("the attempt ended"))
    wanted = {"table": "traces", "format": "CSV", "rows": 3, "bytes": 100, "outcome": outcome}
    assert {name: line.get(name) for name in wanted} == wanted


def test_unknown_keys_do_not_fail_an_export_and_are_counted_once_it_completes(worker: ScriptedWorker) -> None:
    queue(worker.engine, "odd", query={"tableName": "traces", "filter": [], "orderBy": None, "newKey": 1})

    def counted() -> float | None:
        name = "waybill_exports_with_unknown_keys_total"
        return worker.metrics.registry.get_sample_value(name, {"table": "traces"})

    worker.raises = Unavailable("the store is unavailable")
    assert worker.run(claimed(worker.jobs, export_id="odd")) is Outcome.RETRY
    assert counted() is None
    worker.raises = None
    assert worker.run(claimed(worker.jobs, export_id="odd")) is Outcome.COMPLETED

    assert counted() == 1
    assert [run["ignored"] for run in runs_of(worker.engine, "odd")] == [None, "newKey"]
    (event,) = outbox_rows(worker.engine)
    assert json.loads(event["payload"])["ignored"] == ["newKey"]
    assert worker.run(claimed(worker.jobs)) is Outcome.COMPLETED
    assert counted() == 1


def test_an_invalid_query_is_rejected_immediately(worker: ScriptedWorker) -> None:
    queue(worker.engine, "bad", query={"tableName": None})

    assert worker.run(claimed(worker.jobs, export_id="bad")) is Outcome.REJECTED

    assert row_of(worker.engine, "bad")["status"] == "FAILED"
    assert row_of(worker.engine, "bad")["log"].startswith("The query can't be read: tableName")
    assert worker.failures("rejected") == 1


@pytest.mark.parametrize(
    ("error", "words", "kept", "kind"),
    [
        (Unavailable("the store is unavailable"), UNAVAILABLE_TEXT, "the store is unavailable", "unavailable"),
        (
            Unavailable("no space on /x", advice="the store is full"),
            "the store is full",
            "no space on /x",
            "unavailable",
        ),
        (KeyError("x"), "An internal error occurred", "KeyError: 'x'", "bug"),
    ],
)
def test_failures_are_retried_with_backoff_until_no_attempts_are_left(
    worker: ScriptedWorker, error: Exception, words: str, kept: str, kind: str
) -> None:
    worker.raises = error

    assert worker.run(claimed(worker.jobs)) is Outcome.RETRY
    assert (row_of(worker.engine)["status"], row_of(worker.engine)["log"]) == ("QUEUED", None)
    assert runs_of(worker.engine)[0]["next_attempt_at"] == NOW + timedelta(seconds=5)
    assert worker.run(claimed(worker.jobs)) is Outcome.RETRY
    assert runs_of(worker.engine)[1]["next_attempt_at"] == NOW + timedelta(seconds=10)
    assert outbox_rows(worker.engine) == []
    assert worker.run(claimed(worker.jobs)) is Outcome.FAILED

    assert (row_of(worker.engine)["status"], row_of(worker.engine)["log"]) == ("FAILED", words)
    assert [(run["error"], run["error_class"]) for run in runs_of(worker.engine)] == [(kept, kind)] * 3
    assert len(outbox_rows(worker.engine)) == 1
    assert (worker.counted("retry"), worker.counted("failed"), worker.failures(kind)) == (2, 1, 3)


def test_an_attempt_knows_the_most_bytes_that_an_earlier_one_has_written(worker: ScriptedWorker) -> None:
    expected: list[int] = []

    def export(spec: ExportSpec, *_: Any, **__: Any) -> ExportResult:
        expected.append(spec.expected_bytes)
        raise Unavailable("the store completes no upload")

    context = replace(worker.context, export=export)
    for written in (700, 300, 0):
        progress = Progress()
        progress.bytes = written
        claim = claimed(worker.jobs)
        context.extend_lease(claim, progress)
        run_attempt(claim, context, progress)

    assert expected == [0, 700, 700]


def test_a_rejection_in_the_pipeline_fails_the_export_with_its_text(worker: ScriptedWorker) -> None:
    worker.raises = Rejected("The column 'x' is unknown.")

    assert worker.run(claimed(worker.jobs)) is Outcome.REJECTED
    assert row_of(worker.engine)["log"] == "The column 'x' is unknown."


def test_a_cancellation_before_completion_wins_and_deletes_the_file(worker: ScriptedWorker) -> None:
    worker.before = lambda: worker.jobs.cancel(job_of(worker.jobs), NOW)

    assert worker.run(claimed(worker.jobs)) is Outcome.CANCELLED

    assert row_of(worker.engine)["status"] == "CANCELLED"
    assert (worker.files(), outbox_rows(worker.engine)) == ([], [])
    assert runs_of(worker.engine)[0]["outcome"] == "cancelled"


def test_an_export_whose_row_is_deleted_leaves_neither_a_file_nor_an_open_run(worker: ScriptedWorker) -> None:
    def delete_row() -> None:
        with worker.engine.begin() as connection:
            connection.execute(delete(batch_exports))

    worker.before = delete_row

    assert worker.run(claimed(worker.jobs)) is Outcome.CANCELLED

    assert (worker.files(), outbox_rows(worker.engine)) == ([], [])
    assert runs_of(worker.engine)[0]["outcome"] == "cancelled"


def test_a_file_that_can_not_be_deleted_yet_is_left_to_the_sweeper(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.before = lambda: worker.jobs.cancel(job_of(worker.jobs), NOW)

    def unavailable(_: str) -> None:
        raise Unavailable("the store is unavailable")

    monkeypatch.setattr(worker.storage, "delete", unavailable)
    monkeypatch.setattr("consumer.attempt.BACKOFF", Backoff(first=0.01))
    worker.policy = replace(EXPORT_POLICY, lease=timedelta(seconds=0.05))

    assert worker.run(claimed(worker.jobs)) is None

    assert runs_of(worker.engine)[0]["finished_at"] is None


def test_a_worker_that_shuts_down_releases_the_export(worker: ScriptedWorker) -> None:
    worker.raises = Cancelled()

    assert worker.run(claimed(worker.jobs)) is Outcome.RELEASED

    assert row_of(worker.engine)["status"] == "QUEUED"
    assert runs_of(worker.engine)[0]["next_attempt_at"] == NOW


def test_a_stalled_export_is_retried_with_the_reason_on_its_run(worker: ScriptedWorker) -> None:
    worker.raises = Cancelled()
    progress = Progress()
    progress.stall()

    assert run_attempt(claimed(worker.jobs), worker.context, progress) is Outcome.RETRY

    (run,) = runs_of(worker.engine)
    assert (run["error_class"], row_of(worker.engine)["status"]) == ("stalled", "QUEUED")
    assert run["error"].startswith("stalled: for too long no row was read")


def overtake(worker: ScriptedWorker) -> None:
    worker.time = NOW + LEASE
    claimed(worker.jobs, worker.time, worker="worker-b")


def test_a_worker_that_lost_its_lease_leaves_the_file_to_the_running_attempt(worker: ScriptedWorker) -> None:
    worker.before = lambda: overtake(worker)

    assert worker.run(claimed(worker.jobs)) is None

    assert row_of(worker.engine)["status"] == "PROCESSING"
    assert len(worker.files()) == 2
    assert outbox_rows(worker.engine) == []


def test_a_worker_that_lost_its_lease_is_stopped_before_its_file_becomes_visible(worker: ScriptedWorker) -> None:
    worker.fenced = True
    worker.before = lambda: overtake(worker)

    assert worker.run(claimed(worker.jobs)) is None

    assert worker.files() == []


def test_a_worker_that_lost_its_lease_deletes_its_file_when_the_export_has_failed(worker: ScriptedWorker) -> None:
    def overtake_and_fail() -> None:
        worker.time = NOW + LEASE
        worker.jobs.reject(claimed(worker.jobs, worker.time, worker="worker-b"), "no", worker.time)

    worker.before = overtake_and_fail

    assert worker.run(claimed(worker.jobs)) is None

    assert row_of(worker.engine)["status"] == "FAILED"
    assert worker.files() == []


def test_files_of_a_dead_attempt_are_deleted_when_the_export_fails(worker: ScriptedWorker) -> None:
    dead = claimed(worker.jobs)
    context = worker.context
    context.export(
        context.read_spec(dead.job, 1), context.sources, worker.storage, Progress(), worker.metrics, fence=lambda: None
    )
    assert len(worker.files()) == 2
    worker.time = NOW + LEASE
    worker.raises = Rejected("no")

    assert worker.run(claimed(worker.jobs, worker.time)) is Outcome.REJECTED

    assert worker.files() == []


def leave_former_objects(worker: ScriptedWorker, claim: Claim) -> Upload:
    """Leave what a worker of an earlier version leaves when it dies: a file, its manifest and half an upload."""
    key = worker.context.read_spec(claim.job, claim.attempt).former_key
    for each in (key, manifest_key(key)):
        with worker.storage.open(each, "text/csv", claim.attempt) as upload:
            upload.write(b"old")
            upload.finish()
    half = worker.storage.open(key, "text/csv", claim.attempt)
    half.__enter__().write(b"half")
    for path in worker.folder.rglob(".*"):
        os.utime(path, (0, 0))
    assert len(worker.files()) == 3
    return half


def test_an_attempt_of_an_earlier_version_is_followed_by_one_with_the_new_name_and_leaves_nothing(
    worker: ScriptedWorker,
) -> None:
    half = leave_former_objects(worker, claimed(worker.jobs))
    worker.time = NOW + LEASE

    assert worker.run(claimed(worker.jobs, worker.time)) is Outcome.COMPLETED

    name = "1795262400000-export-1-lf-traces-export-project-1.csv"
    assert worker.files() == [name, f"{name}.manifest.json"]
    assert row_of(worker.engine)["url"].endswith(f"/exports/{name}")
    assert runs_of(worker.engine)[-1]["object_key"] == f"exports/{name}"
    half.abort()


@pytest.mark.parametrize("ending", ["rejected", "cancelled", "out of attempts"])
def test_objects_of_an_earlier_version_are_deleted_when_the_export_ends_without_a_file(
    worker: ScriptedWorker, ending: str
) -> None:
    half = leave_former_objects(worker, claimed(worker.jobs))
    worker.time = NOW + LEASE
    match ending:
        case "rejected":
            worker.raises = Rejected("no")
        case "cancelled":
            worker.before = lambda: worker.jobs.cancel(job_of(worker.jobs), worker.time)
        case _:
            worker.raises = Unavailable("the source is unavailable")
            worker.policy = replace(EXPORT_POLICY, max_attempts=1)

    worker.run(claimed(worker.jobs, worker.time))

    assert row_of(worker.engine)["status"] == ("CANCELLED" if ending == "cancelled" else "FAILED")
    assert worker.files() == []
    half.abort()


def test_a_former_object_that_can_not_be_deleted_does_not_fail_the_export(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = leave_former_objects(worker, claimed(worker.jobs))
    worker.time = NOW + LEASE

    def unavailable(*_: object) -> None:
        raise Unavailable("the store is unavailable")

    monkeypatch.setattr(worker.storage, "delete", unavailable)

    assert worker.run(claimed(worker.jobs, worker.time)) is Outcome.COMPLETED
    half.abort()


def test_writing_an_outcome_waits_for_an_unavailable_database(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, tries = worker.jobs.complete, []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("the database is unavailable")
        return complete(*args, **kwargs)

    monkeypatch.setattr(worker.jobs, "complete", flaky)
    monkeypatch.setattr("consumer.attempt.BACKOFF", Backoff(first=0.01))

    assert worker.run(claimed(worker.jobs)) is Outcome.COMPLETED
    assert (len(tries), worker.counted("completed")) == (3, 1)


def test_an_unexpected_error_while_writing_an_outcome_is_logged_and_not_raised(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(worker.jobs, "complete", broken)

    monkeypatch.setattr(worker.jobs, "postpone", broken)

    assert worker.run(claimed(worker.jobs)) is None

    assert "could not be written" in caplog.text
    assert row_of(worker.engine)["status"] == "PROCESSING"


def test_an_outcome_that_can_not_be_stored_fails_the_export_after_its_attempts_and_leaves_no_file(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(outbox, "completion_event", broken)

    outcomes = []
    for _ in range(worker.policy.max_attempts):
        outcomes.append(worker.run(claimed(worker.jobs, worker.time)))
        worker.time += timedelta(minutes=10)

    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]
    row, runs = row_of(worker.engine), runs_of(worker.engine)
    assert (row["status"], row["log"]) == ("FAILED", "An internal error occurred")
    assert [run["outcome"] for run in runs] == ["retry", "retry", "failed"]
    assert runs[-1]["error"] == "the outcome can't be stored: TypeError: a bug"
    assert (worker.files(), outbox_rows(worker.engine)) == ([], [])
    assert (worker.counted("failed"), worker.failures("bug")) == (1, 3)


@pytest.mark.parametrize("table", ["x" * 1_000_000, "\ud800"])
def test_a_name_that_does_not_fit_an_event_is_shortened_in_it(worker: ScriptedWorker, table: str) -> None:
    queue(worker.engine, "odd", query={"tableName": table})

    assert worker.run(claimed(worker.jobs, export_id="odd")) is Outcome.REJECTED

    (event,) = outbox_rows(worker.engine)
    assert len(event["payload"]) < 10_000


def test_writing_an_outcome_stops_when_the_lease_has_expired(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> None:
        raise Unavailable("the database is unavailable")

    monkeypatch.setattr(worker.jobs, "complete", unavailable)
    monkeypatch.setattr("consumer.attempt.BACKOFF", Backoff(first=0.01))
    worker.policy = replace(EXPORT_POLICY, lease=timedelta(seconds=0.05))

    assert worker.run(claimed(worker.jobs)) is None


def test_an_export_is_a_span_of_its_requests_trace(worker: ScriptedWorker) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    worker.tracer = Tracer(provider.get_tracer("test"))
    claim = replace(claimed(worker.jobs), traceparent=f"00-{'a' * 32}-{'b' * 16}-01")

    assert worker.run(claim) is Outcome.COMPLETED

    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert (span.name, f"{span.context.trace_id:032x}") == ("export", "a" * 32)
    assert span.attributes is not None
    assert span.attributes["waybill.export_id"] == "export-1"
    assert span.attributes["waybill.outcome"] == "completed"
    assert [event.name for event in span.events] == ["read", "upload"]
    (letter,) = outbox_rows(worker.engine)
    assert letter["traceparent"] == f"00-{'a' * 32}-{span.context.span_id:016x}-01"


def test_a_later_attempt_belongs_to_the_trace_of_the_first(worker: ScriptedWorker) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    first = worker.jobs.claim(job_of(worker.jobs), "worker-a", NOW, traceparent)
    assert isinstance(first, Claim)
    worker.jobs.release(first, NOW)

    second = claimed(worker.jobs)

    assert second.traceparent == traceparent
    assert second.log_context()["trace_id"] == "a" * 32
