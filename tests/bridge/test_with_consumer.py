"""A job whose request is published twice, because a bridge was killed, makes one export."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from cli import build
from config.settings import load
from config.tables import batch_exports, runs
from consumer.job_store import Jobs
from consumer.models import NewExport
from tests.bridge.conftest import Bridges, Broker
from tests.bridge.queue import PROJECT, ExportQueue, Topic, publish_without_completing
from tests.services.redis import Redis
from tests.services.stacks import RealStack, Stack
from tests.support.daemons import daemon, eventually, waybill


def test_requests_that_are_published_twice_run_once(
    stack: Stack, queue: ExportQueue, topic: Topic, bridges: Bridges, redis: Redis, broker: Broker
) -> None:
    if not isinstance(stack, RealStack):
        pytest.skip("the bridge needs a real broker")
    mine = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "WAYBILL_REQUESTS_TOPIC": topic.name}
    environment = {**stack.environment(), **mine, "WAYBILL_SWEEP_SECONDS": "3600"}
    assert waybill("migrate", "--with-application-schema", environment=environment).returncode == 0
    assert waybill("topics", environment=environment).returncode == 0
    jobs = build.jobs(load(environment))
    exports = [_insert(jobs) for _ in range(3)]
    with bridges.run() as bridge:
        publish_without_completing(queue, topic, broker.proxy, *exports)
        bridge.process.kill()
    redis.run("client", "unpause")
    queue.end_locks()
    with bridges.run(), daemon("consumer", bridges.folder, environment) as consumer:
        eventually(queue.empty, what="the queue is empty")
        read_twice = 2 * len(exports)
        eventually(lambda: consumer.metric("waybill_requests_total") == read_twice, what="each request is read twice")
        eventually(lambda: _statuses(jobs) == ["COMPLETED"] * len(exports), what="the exports are completed")
        assert _attempts(jobs) == [(each, 1) for each in sorted(exports)]
    jobs.engine.dispose()
    assert topic.exports() == dict.fromkeys(exports, 2)


def _insert(jobs: Jobs) -> str:
    query: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
    new = NewExport(project_id=PROJECT, user_id="someone", name="All traces", query=query, format="CSV")
    return jobs.create(new, datetime.now(UTC)).id


def _statuses(jobs: Jobs) -> list[str]:
    with jobs.engine.connect() as connection:
        return list(connection.scalars(select(batch_exports.c.status)))


def _attempts(jobs: Jobs) -> list[tuple[str, int]]:
    with jobs.engine.connect() as connection:
        return sorted((each.export_id, each.attempt) for each in connection.execute(select(runs)))
