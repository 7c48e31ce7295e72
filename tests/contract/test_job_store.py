"""The job store with concurrent workers, on SQLite and on PostgreSQL."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, make_url

from config.errors import Rejected, Unavailable
from config.labels import Failure, Verdict
from config.tables import batch_exports
from consumer.fail_row import close_dead_runs
from consumer.job_store import Jobs
from consumer.models import Claim, Job, LeaseState, NewExport, UnreadableJob
from consumer.outbox import list_unpublished, mark_published
from consumer.queries import list_due, list_jobs, list_orphans, list_ownerless, list_runs
from runtime.database import open_database
from tests.support.exports import (
    CLAIM_POLICY,
    LEASE,
    NOW,
    QUERY,
    after,
    claimed,
    job_of,
    outbox_rows,
    queue,
    result_of,
    row_of,
    runs_of,
    set_status,
)


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    queue(engine)
    return Jobs(engine, CLAIM_POLICY)


def due(engine: Engine, now_seconds: float, project_slots: int = 0) -> list[str]:
    found = list_due(
        engine,
        now=after(now_seconds),
        unseen_for=timedelta(seconds=30),
        not_before=NOW - timedelta(days=30),
        project_slots=project_slots,
        limit=10,
    )
    return [key.export_id for key in found]


def ids(listed: list[Job | UnreadableJob]) -> list[str]:
    return [job.id for job in listed if isinstance(job, Job)]


def test_an_export_is_found_only_in_its_own_project(jobs: Jobs) -> None:
    job = job_of(jobs)

    assert (job.id, job.status, job.attempt, job.table, job.query) == ("export-1", "QUEUED", 0, "traces", QUERY)
    assert job.created_at == NOW
    assert jobs.find("project-2", "export-1") is None


def test_a_claim_moves_the_row_and_opens_a_run(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    (run,) = runs_of(engine)
    assert claim.attempt == 1
    assert row_of(engine)["status"] == "PROCESSING"
    assert (run["attempt"], run["worker"], run["failures"], run["finished_at"]) == (1, "worker-a", 0, None)
    assert (run["claimed_at"], run["lease_until"]) == (NOW, NOW + LEASE)


def test_one_of_many_concurrent_claims_succeeds(engine: Engine, jobs: Jobs) -> None:
    job = job_of(jobs)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: jobs.claim(job, f"worker-{n}", NOW), range(8)))

    assert sum(isinstance(answer, Claim) for answer in answers) == 1
    assert answers.count(Verdict.OVERTAKEN) == 7
    assert len(runs_of(engine)) == 1


def test_one_of_many_concurrent_takeovers_succeeds(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)
    job = job_of(jobs)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: jobs.claim(job, f"worker-{n}", after(61)), range(8)))

    assert sum(isinstance(answer, Claim) for answer in answers) == 1
    first, second = runs_of(engine)
    assert (first["outcome"], first["error_class"]) == ("lost", "lost")
    assert (second["attempt"], second["failures"], second["finished_at"]) == (2, 1, None)


def test_a_late_heartbeat_keeps_a_claim_that_was_not_taken_over(jobs: Jobs) -> None:
    claim = claimed(jobs)
    seen = job_of(jobs)

    assert jobs.extend_lease(claim, rows=1, bytes_=2, now=after(70)) is LeaseState.KEPT
    assert jobs.claim(seen, "worker-b", after(71)) is Verdict.OVERTAKEN


def test_a_heartbeat_extends_the_lease_and_records_progress(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    assert jobs.extend_lease(claim, rows=5000, bytes_=123, now=after(10), stage="read") is LeaseState.KEPT

    (run,) = runs_of(engine)
    assert run["stage"] == "read"
    assert (run["rows"], run["bytes"], run["heartbeat_at"], run["lease_until"]) == (
        5000,
        123,
        after(10),
        after(10) + LEASE,
    )


def test_a_heartbeat_reports_a_cancellation(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)
    jobs.cancel(job_of(jobs), after(1))

    assert jobs.extend_lease(claim, rows=0, bytes_=0, now=after(2)) is LeaseState.CANCELLED
    assert row_of(engine)["status"] == "CANCELLED"


def overtaken(jobs: Jobs) -> Claim:
    """A claim whose export another worker has claimed since."""
    claim = claimed(jobs)
    claimed(jobs, after(61), worker="worker-b")
    return claim


def test_a_worker_that_lost_its_lease_changes_nothing(engine: Engine, jobs: Jobs) -> None:
    claim = overtaken(jobs)
    before = row_of(engine), runs_of(engine)
    now = after(62)

    assert jobs.extend_lease(claim, rows=9, bytes_=9, now=now) is LeaseState.LOST
    assert jobs.complete(claim, result_of(), url="https://x", expires_at=after(99), now=now) is LeaseState.LOST
    assert jobs.reject(claim, "no", now) is LeaseState.LOST
    assert jobs.postpone(claim, Failure.BUG, error="x", until=after(70), now=now) is LeaseState.LOST
    assert jobs.give_up(claim, Failure.BUG, text="x", error="x", now=now) is LeaseState.LOST
    assert jobs.release(claim, now) is LeaseState.LOST
    assert not jobs.close_cancelled(claim, now)

    assert (row_of(engine), runs_of(engine)) == before
    assert outbox_rows(engine) == []


def test_completing_writes_the_row_the_run_and_the_event(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)
    expires = after(3600)

    assert jobs.complete(claim, result_of(), url="https://link", expires_at=expires, now=after(5)) is LeaseState.KEPT

    row, (run,), (letter,) = row_of(engine), runs_of(engine), outbox_rows(engine)
    assert (row["status"], row["url"], row["log"]) == ("COMPLETED", "https://link", None)
    assert (row["finished_at"], row["expires_at"], row["updated_at"]) == (after(5), expires, after(5))
    assert (run["outcome"], run["rows"], run["bytes"], run["sha256"]) == ("completed", 3, 100, "ab" * 32)
    assert (run["object_key"], run["finished_at"]) == ("exports/file.csv", after(5))
    assert (letter["topic"], letter["key"], letter["published_at"]) == ("export-completions", "export-1", None)
    event = json.loads(letter["payload"])
    assert event.pop("eventId")
    assert event == {
        "projectId": "project-1",
        "batchExportId": "export-1",
        "attempt": 1,
        "status": "COMPLETED",
        "tableName": "traces",
        "format": "CSV",
        "rows": 3,
        "bytes": 100,
        "sha256": "ab" * 32,
        "truncated": False,
        "startedAt": "2026-11-21T12:00:00Z",
        "finishedAt": "2026-11-21T12:00:05Z",
        "expiresAt": "2026-11-21T13:00:00Z",
        "error": None,
        "ignored": [],
    }


def test_keys_that_were_ignored_are_on_the_run_and_in_the_event_in_short(engine: Engine, jobs: Jobs) -> None:
    names = ("filter[0].colour", "x" * 5_000, *map(str, range(10)))
    result = replace(result_of(), ignored=names)

    jobs.complete(claimed(jobs), result, url="https://link", expires_at=after(3600), now=after(5))

    (run,), (letter,) = runs_of(engine), outbox_rows(engine)
    short = ["filter[0].colour", f"{'x' * 99}…", *map(str, range(8))]
    assert run["ignored"] == f"{', '.join(short)} and 2 more"
    assert json.loads(letter["payload"])["ignored"] == short
    assert job_of(jobs).run is not None
    assert job_of(jobs).run.ignored == run["ignored"]  # type: ignore[union-attr] # asserted above


def test_an_outcome_whose_answer_was_lost_may_be_written_again(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    for seconds in (5, 6):
        state = jobs.complete(claim, result_of(), url="https://link", expires_at=after(60), now=after(seconds))
        assert state is LeaseState.KEPT

    assert len(outbox_rows(engine)) == 1
    assert row_of(engine)["finished_at"] == after(5)


def test_completing_a_cancelled_export_leaves_it_cancelled(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)
    jobs.cancel(job_of(jobs), after(1))

    state = jobs.complete(claim, result_of(), url="https://link", expires_at=after(60), now=after(2))

    assert state is LeaseState.CANCELLED
    assert (row_of(engine)["status"], row_of(engine)["url"], outbox_rows(engine)) == ("CANCELLED", None, [])
    assert jobs.close_cancelled(claim, after(3))
    assert runs_of(engine)[0]["outcome"] == "cancelled"


def test_one_of_concurrent_cancelling_and_completing_wins(engine: Engine) -> None:
    jobs = Jobs(engine, CLAIM_POLICY)
    for number in range(10):
        name = f"export-{number + 10}"
        queue(engine, name)
        claim = claimed(jobs, export_id=name)
        seen = job_of(jobs, name)

        def cancel(seen: Any = seen) -> bool:
            try:
                jobs.cancel(seen, after(1))
            except Rejected:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            cancelling = pool.submit(cancel)
            completing = pool.submit(
                jobs.complete, claim, result_of(), url="https://x", expires_at=after(9), now=after(1)
            )
        expected = "CANCELLED" if cancelling.result() else "COMPLETED"
        assert row_of(engine, name)["status"] == expected
        assert completing.result() is (LeaseState.CANCELLED if cancelling.result() else LeaseState.KEPT)


def test_rejecting_writes_the_reason_for_the_user(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    assert jobs.reject(claim, "The column 'x' is unknown.", after(1)) is LeaseState.KEPT

    row, (run,), (letter,) = row_of(engine), runs_of(engine), outbox_rows(engine)
    assert (row["status"], row["log"], row["finished_at"]) == ("FAILED", "The column 'x' is unknown.", after(1))
    assert (run["outcome"], run["error_class"]) == ("rejected", "rejected")
    event = json.loads(letter["payload"])
    assert (event["status"], event["error"]) == ("FAILED", "The column 'x' is unknown.")


def test_reasons_that_a_text_column_rejects_are_made_valid(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    assert jobs.reject(claim, "bad\x00 \ud800 " + "x" * 10_000, after(1)) is LeaseState.KEPT

    assert row_of(engine)["log"].startswith("bad ? xxx")
    assert len(row_of(engine)["log"]) == 4000


def test_a_failed_attempt_goes_back_to_the_queue_until_it_is_due(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    state = jobs.postpone(claim, Failure.UNAVAILABLE, error="S3 is unavailable", until=after(15), now=after(10))

    assert state is LeaseState.KEPT
    (run,) = runs_of(engine)
    assert (row_of(engine)["status"], row_of(engine)["log"]) == ("QUEUED", None)
    assert (run["outcome"], run["error"], run["next_attempt_at"]) == ("retry", "S3 is unavailable", after(15))
    assert outbox_rows(engine) == []
    assert due(engine, 14) == []
    assert due(engine, 15) == ["export-1"]


def test_failed_attempts_in_a_row_are_counted_and_releases_are_not(jobs: Jobs) -> None:
    jobs.postpone(claimed(jobs), Failure.BUG, error="x", until=NOW, now=NOW)
    assert job_of(jobs).failed_so_far == 1
    second = claimed(jobs)  # its worker dies
    assert job_of(jobs).failed_so_far == 2
    third = claimed(jobs, after(61))
    assert (second.failures, third.failures) == (1, 2)
    jobs.release(third, after(62))
    fourth = claimed(jobs, after(63))
    assert (fourth.attempt, fourth.failures) == (4, 2)


def test_a_released_export_is_due_immediately(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)

    assert jobs.release(claim, after(1)) is LeaseState.KEPT

    assert row_of(engine)["status"] == "QUEUED"
    assert runs_of(engine)[0]["outcome"] == "released"
    assert due(engine, 1) == ["export-1"]


def test_a_stale_export_fails_with_an_event_and_without_an_attempt(engine: Engine, jobs: Jobs) -> None:
    job = job_of(jobs)

    assert jobs.fail(job, Failure.STALE, text="Start it again.", now=after(1))
    assert not jobs.fail(job, Failure.STALE, text="Start it again.", now=after(2))

    (letter,) = outbox_rows(engine)
    assert (row_of(engine)["status"], row_of(engine)["log"]) == ("FAILED", "Start it again.")
    assert json.loads(letter["payload"])["attempt"] == 0
    assert runs_of(engine) == []


def test_failing_an_exhausted_export_closes_the_dead_run(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)

    assert jobs.fail(job_of(jobs), Failure.LOST, text="An internal error occurred", now=after(61))

    assert (runs_of(engine)[0]["outcome"], row_of(engine)["status"]) == ("failed", "FAILED")
    jobs.retry(job_of(jobs), after(62))
    assert job_of(jobs).failed_so_far == 0


def test_an_export_with_a_live_lease_can_not_be_failed_by_others(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)

    assert not jobs.fail(job_of(jobs), Failure.LOST, text="x", now=after(59))

    assert row_of(engine)["status"] == "PROCESSING"


def test_a_project_gets_no_more_slots_than_its_limit(engine: Engine) -> None:
    for number in range(6):
        queue(engine, f"export-{number}")
    queue(engine, "other", "project-2")
    jobs = Jobs(engine, replace(CLAIM_POLICY, project_slots=2))
    seen = [job_of(jobs, f"export-{number}") for number in range(6)]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda job: jobs.claim(job, "worker-a", NOW), seen))

    claims = [answer for answer in answers if isinstance(answer, Claim)]
    assert len(claims) == 2
    assert answers.count(Verdict.CAPPED) == 4
    assert due(engine, 31, project_slots=2) == ["other"]
    jobs.release(claims[0], after(1))
    assert len(due(engine, 31, project_slots=2)) == 6


def test_a_retry_queues_the_export_again_immediately(engine: Engine, jobs: Jobs) -> None:
    jobs.postpone(claimed(jobs), Failure.BUG, error="x", until=after(500), now=NOW)
    jobs.cancel(job_of(jobs), after(1))

    jobs.retry(job_of(jobs), after(2))

    row = row_of(engine)
    assert (row["status"], row["finished_at"], row["log"], row["url"]) == ("QUEUED", None, None, None)
    assert claimed(jobs, after(3)).attempt == 2


@pytest.mark.parametrize(
    ("status", "verb"), [("COMPLETED", "cancel"), ("COMPLETED", "retry"), ("QUEUED", "retry"), ("FAILED", "cancel")]
)
def test_an_unsuitable_status_prevents_cancelling_and_retrying(
    engine: Engine, jobs: Jobs, status: str, verb: str
) -> None:
    set_status(engine, status)

    with pytest.raises(Rejected, match=f"export-1 is {status}"):
        getattr(jobs, verb)(job_of(jobs), NOW)

    assert row_of(engine)["status"] == status


def test_a_retry_fences_off_the_cancelled_worker_that_still_runs(jobs: Jobs) -> None:
    first = claimed(jobs)
    jobs.cancel(job_of(jobs), after(1))
    jobs.retry(job_of(jobs), after(2))

    claimed(jobs, after(3), worker="worker-b")

    assert jobs.extend_lease(first, rows=0, bytes_=0, now=after(4)) is LeaseState.LOST


def test_new_exports_are_due_only_after_a_wait_for_their_event(engine: Engine) -> None:
    jobs = Jobs(engine, CLAIM_POLICY)
    new = NewExport(project_id="project-1", user_id="user-1", name="n", query=QUERY, format="JSONL")
    made = jobs.create(new, NOW)

    assert jobs.find("project-1", made.id) == made
    assert due(engine, 29) == []
    assert due(engine, 30) == [made.id]


def test_the_sweeper_finds_only_exports_with_expired_leases(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)

    assert due(engine, 59) == []
    assert due(engine, 60) == ["export-1"]


def test_rows_older_than_the_limit_are_left_to_their_events(engine: Engine) -> None:
    queue(engine, "old", created_at=NOW - timedelta(days=31))

    assert due(engine, 60) == []


def test_exports_of_another_program_are_not_due(engine: Engine) -> None:
    queue(engine, "theirs", status="PROCESSING")

    assert due(engine, 3600) == []


def test_the_run_of_a_dead_worker_is_closed_when_its_export_was_cancelled(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)
    jobs.cancel(job_of(jobs), after(1))

    assert list_orphans(engine, now=after(59), limit=9) == []
    (key,) = list_orphans(engine, now=after(60), limit=9)
    assert key == job_of(jobs).key
    orphan = job_of(jobs)
    assert not jobs.close_orphan(orphan, after(59))
    assert jobs.close_orphan(orphan, after(60))

    assert runs_of(engine)[0]["outcome"] == "cancelled"
    assert list_orphans(engine, now=after(60), limit=9) == []


def test_a_deleted_row_is_a_lost_lease(engine: Engine, jobs: Jobs) -> None:
    claim = claimed(jobs)
    with engine.begin() as connection:
        connection.execute(delete(batch_exports))

    assert jobs.extend_lease(claim, rows=0, bytes_=0, now=after(1)) is LeaseState.LOST
    assert jobs.complete(claim, result_of(), url="x", expires_at=after(9), now=after(1)) is LeaseState.LOST
    assert outbox_rows(engine) == []


def test_the_run_of_a_dead_worker_is_closed_when_its_row_was_deleted(engine: Engine, jobs: Jobs) -> None:
    claimed(jobs)
    assert list_ownerless(engine, now=after(60), limit=9) == []
    with engine.begin() as connection:
        connection.execute(delete(batch_exports))

    assert list_ownerless(engine, now=after(59), limit=9) == []
    (key,) = list_ownerless(engine, now=after(60), limit=9)
    assert not close_dead_runs(engine, key, after(59))
    assert close_dead_runs(engine, key, after(60))

    assert (runs_of(engine)[0]["outcome"], runs_of(engine)[0]["finished_at"]) == ("cancelled", after(60))
    assert list_ownerless(engine, now=after(60), limit=9) == []


def test_events_leave_the_outbox_in_order_once_marked(engine: Engine) -> None:
    jobs = Jobs(engine, CLAIM_POLICY)
    for name in ("a", "b", "c"):
        queue(engine, name)
        jobs.reject(claimed(jobs, export_id=name), "no", NOW)

    waiting = list_unpublished(engine, limit=2)
    assert [letter.key for letter in waiting] == [b"a", b"b"]
    mark_published(engine, [waiting[0].id], after(1))
    mark_published(engine, [], after(1))
    assert [letter.key for letter in list_unpublished(engine, limit=9)] == [b"b", b"c"]


def test_lists_are_newest_first_and_show_every_attempt(engine: Engine, jobs: Jobs) -> None:
    queue(engine, "younger", created_at=after(10))
    queue(engine, "elsewhere", "project-2")
    jobs.release(claimed(jobs), NOW)
    claimed(jobs, after(1))

    assert ids(list_jobs(engine, project_id="project-1")) == ["younger", "export-1"]
    assert ids(list_jobs(engine, status="PROCESSING")) == ["export-1"]
    assert len(list_jobs(engine, limit=1)) == 1
    assert [run.outcome for run in list_runs(engine, job_of(jobs))] == ["released", None]


def test_a_missing_database_is_unavailable(tmp_path: Path) -> None:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/no/such/folder.db"))

    with pytest.raises(Unavailable, match="the database failed: unable to open"):
        Jobs(engine, CLAIM_POLICY).find("project-1", "export-1")
