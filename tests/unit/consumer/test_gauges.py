from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, make_url

from config.metrics import Metrics
from config.tables import application
from consumer.gauges import measure
from consumer.jobs import Jobs
from runtime.database import open_database
from runtime.migrations import migrate
from tests.support.exports import NOW, TERMS, after, claimed, queue, result_of

GAUGES = (
    "waybill_exports_queued",
    "waybill_oldest_queued_seconds",
    "waybill_oldest_heartbeat_seconds",
    "waybill_outbox_waiting",
    "waybill_outbox_oldest_seconds",
)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    engine = open_database(make_url(f"sqlite:///{tmp_path}/jobs.db"))
    application.create_all(engine)
    migrate(engine)
    yield Jobs(engine, TERMS)
    engine.dispose()


def measured(engine: Engine, now: datetime) -> list[float | None]:
    metrics = Metrics(CollectorRegistry())
    measure(engine, metrics, now=now, not_before=NOW - timedelta(days=30))
    return [metrics.registry.get_sample_value(name) for name in GAUGES]


def test_where_nothing_waits_every_gauge_is_zero(jobs: Jobs) -> None:
    assert measured(jobs.engine, NOW) == [0] * 5


def test_queued_exports_wait_since_they_were_put_in_the_queue(jobs: Jobs) -> None:
    for name in ("first", "second", "third"):
        queue(jobs.engine, name)
    jobs.release(claimed(jobs, after(60), "first"), after(70))
    jobs.release(claimed(jobs, after(60), "second"), after(80))
    jobs.release(claimed(jobs, after(60), "third"), after(90))

    assert measured(jobs.engine, after(100))[:2] == [3, 30]


def test_what_is_too_old_to_be_run_does_not_count(jobs: Jobs) -> None:
    old = NOW - timedelta(days=31)
    queue(jobs.engine, created_at=old, updated_at=old)

    assert measured(jobs.engine, NOW)[:2] == [0, 0]


def test_the_oldest_heartbeat_is_that_of_an_export_that_runs(jobs: Jobs) -> None:
    for name in ("done", "quick", "slow"):
        queue(jobs.engine, name)
    done, quick, _ = (claimed(jobs, after(at), name) for at, name in ((0, "done"), (10, "quick"), (20, "slow")))
    jobs.complete(done, result_of(), url="file:///x", expires_at=after(99), now=after(30))
    jobs.beat(quick, rows=1, bytes_=1, now=after(40))

    assert measured(jobs.engine, after(50))[2] == 30


def test_events_wait_in_the_outbox_until_they_are_published(jobs: Jobs) -> None:
    queue(jobs.engine)
    jobs.complete(claimed(jobs), result_of(), url="file:///x", expires_at=after(99), now=after(30))

    assert measured(jobs.engine, after(50))[3:] == [1, 20]
