from datetime import datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from config.metrics import Metrics
from consumer.job_store import Jobs
from consumer.metrics import measure_queue, start_at_zero
from tests.support.exports import CLAIM_POLICY, NOW, after, claimed, queue, result_of

GAUGES = (
    "waybill_exports_queued",
    "waybill_oldest_queued_seconds",
    "waybill_oldest_heartbeat_seconds",
    "waybill_outbox_waiting",
    "waybill_outbox_oldest_seconds",
)
COUNTERS = (
    "waybill_requests_total",
    "waybill_exports_started_total",
    "waybill_exports_total",
    "waybill_attempts_failed_total",
    "waybill_dead_letters_total",
    "waybill_uploads_total",
    "waybill_exports_with_unknown_keys_total",
)


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine, CLAIM_POLICY)


def measured_gauges(engine: Engine, now: datetime) -> list[float | None]:
    metrics = Metrics(CollectorRegistry())
    measure_queue(engine, metrics, now=now, not_before=NOW - timedelta(days=30))
    return [metrics.registry.get_sample_value(name) for name in GAUGES]


def test_every_gauge_is_zero_when_nothing_is_queued(jobs: Jobs) -> None:
    assert measured_gauges(jobs.engine, NOW) == [0] * 5


def test_the_age_of_a_queued_export_begins_when_it_was_queued(jobs: Jobs) -> None:
    for name in ("first", "second", "third"):
        queue(jobs.engine, name)
    jobs.release(claimed(jobs, after(60), "first"), after(70))
    jobs.release(claimed(jobs, after(60), "second"), after(80))
    jobs.release(claimed(jobs, after(60), "third"), after(90))

    assert measured_gauges(jobs.engine, after(100))[:2] == [3, 30]


def test_exports_that_were_created_in_the_future_are_counted_and_logged(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(CollectorRegistry())
    for number, seconds in enumerate((59, 61, 9 * 3600)):
        queue(jobs.engine, f"export-{number}", created_at=after(seconds))

    measure_queue(jobs.engine, metrics, now=NOW, not_before=NOW - timedelta(days=30))

    assert metrics.registry.get_sample_value("waybill_exports_in_future") == 2
    assert "a creation time in the future" in caplog.text


def test_exports_that_are_too_old_to_run_do_not_count(jobs: Jobs) -> None:
    old = NOW - timedelta(days=31)
    queue(jobs.engine, created_at=old, updated_at=old)

    assert measured_gauges(jobs.engine, NOW)[:2] == [0, 0]


def test_the_oldest_heartbeat_is_of_a_running_export(jobs: Jobs) -> None:
    for name in ("done", "quick", "slow"):
        queue(jobs.engine, name)
    done, quick, _ = (claimed(jobs, after(at), name) for at, name in ((0, "done"), (10, "quick"), (20, "slow")))
    jobs.complete(done, result_of(), url="file:///x", expires_at=after(99), now=after(30))
    jobs.extend_lease(quick, rows=1, bytes_=1, now=after(40))

    assert measured_gauges(jobs.engine, after(50))[2] == 30


def test_events_count_as_waiting_until_they_are_published(jobs: Jobs) -> None:
    queue(jobs.engine)
    jobs.complete(claimed(jobs), result_of(), url="file:///x", expires_at=after(99), now=after(30))

    assert measured_gauges(jobs.engine, after(50))[3:] == [1, 20]


def test_every_counter_starts_at_zero() -> None:
    metrics = Metrics(CollectorRegistry())
    start_at_zero(metrics)

    samples = [each for family in metrics.registry.collect() for each in family.samples if each.name in COUNTERS]

    assert {each.name for each in samples} == set(COUNTERS)
    assert {each.value for each in samples} == {0}
    reasons = {each.labels["reason"] for each in samples if each.name == "waybill_attempts_failed_total"}
    assert {"unavailable", "bug", "lost", "rejected", "stale", "unreadable"} <= reasons
    assert {each.labels["table"] for each in samples if "table" in each.labels} >= {"traces", "scores", "other"}
