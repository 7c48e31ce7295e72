"""The bridge hands each job of Langfuse's queue over to Kafka, whatever dies, and whenever."""

import contextlib
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bridge.conftest import Bridges, Broker
from tests.bridge.queue import PROJECT, ExportQueue, Topic, new_ids, publish_without_completing
from tests.services import bridge as bridge_service
from tests.services import redis as redis_service
from tests.services.process import free_port
from tests.services.redis import Redis
from tests.support.daemons import eventually
from tests.support.tcp_proxy import Conditions, tcp_proxy

HELD = 10
"""Jobs that a bridge holds at the same time."""


def test_jobs_that_bullmq_added_become_requests_and_leave_the_queue(
    queue: ExportQueue, topic: Topic, bridges: Bridges
) -> None:
    waiting, later = new_ids(200), new_ids(20)
    queue.add_exports(*waiting)
    with bridges.run() as bridge:
        queue.add_exports(*later)
        eventually(queue.empty, what="the queue is empty")
        assert topic.exports() == dict.fromkeys((*waiting, *later), 1)
        bridge.process.terminate()
        assert bridge.process.wait(30) == 0
    published = [each for each in bridge.lines() if each["message"] == "published the request of a job"]
    assert {each["batchExportId"] for each in published} == {*waiting, *later}
    assert {each["level"] for each in bridge.lines()} == {"INFO"}


def test_two_bridges_share_the_jobs(queue: ExportQueue, topic: Topic, bridges: Bridges) -> None:
    with bridges.run() as one, bridges.run() as other:
        exports = new_ids(300)
        queue.add_exports(*exports)
        eventually(queue.empty, what="the queue is empty")
    assert topic.exports() == dict.fromkeys(exports, 1)
    assert all("published" in bridge.log.read_text() for bridge in (one, other))


def test_bridges_that_are_killed_lose_no_job(queue: ExportQueue, topic: Topic, bridges: Bridges) -> None:
    exports: list[str] = []
    for _ in range(4):
        with bridges.run() as bridge:
            added = new_ids(300)
            queue.add_exports(*added)
            exports += added
            eventually(lambda: "published the request" in bridge.log.read_text(), what="it hands over jobs")
            bridge.process.kill()
        queue.end_locks()
    with bridges.run():
        eventually(queue.empty, what="the queue is empty")
    assert set(topic.exports()) == set(exports)


def test_a_job_that_was_published_and_not_completed_is_published_again(
    queue: ExportQueue, topic: Topic, bridges: Bridges, redis: Redis, broker: Broker
) -> None:
    with bridges.run() as bridge:
        publish_without_completing(queue, topic, broker.proxy, *(exports := new_ids(3)))
        bridge.process.kill()
    redis.run("client", "unpause")
    assert queue.count("active") == len(exports)
    for job in queue.jobs():
        queue.set_field(job, "stc", "7")  # as if as many bridges had been killed with it
    queue.end_locks()
    with bridges.run() as second:
        eventually(queue.empty, what="the queue is empty")
    assert topic.exports() == dict.fromkeys(exports, 2)
    assert "took the job of a bridge that ended" in second.log.read_text()


def test_jobs_wait_while_kafka_is_down(queue: ExportQueue, topic: Topic, bridges: Bridges, broker: Broker) -> None:
    exports = new_ids(50)
    broker.proxy.refuse()
    queue.add_exports(*exports)
    with bridges.run(wait=False) as bridge:
        eventually(lambda: '"Kafka is not available' in bridge.log.read_text(), what="it says that Kafka is down")
        assert json.loads(bridge.get("/readyz")[1])["ready"] is False
        assert bridge.get("/livez")[0] == 200
        assert queue.count("wait") == len(exports)
        broker.proxy.heal()
        eventually(bridge.ready, what="it is ready")
        eventually(queue.empty, what="the queue is empty")
    assert set(topic.exports()) == set(exports)


def test_jobs_of_a_broker_that_dies_are_published_when_it_is_back(
    queue: ExportQueue, topic: Topic, bridges: Bridges, broker: Broker
) -> None:
    first, second, third = new_ids(5), new_ids(100), new_ids(5)
    with bridges.run() as bridge:
        queue.add_exports(*first)
        eventually(queue.empty, what="the queue is empty")
        broker.proxy.refuse()
        queue.add_exports(*second)
        eventually(lambda: not bridge.ready(), what="it is not ready")
        eventually(lambda: queue.count("active") == HELD, what="it holds as many jobs as it may")
        assert queue.count("wait") == len(second) - HELD
        assert "kafka" in json.loads(bridge.get("/readyz")[1])
        broker.proxy.heal()
        queue.add_exports(*third)
        eventually(queue.empty, what="the queue is empty")
        assert bridge.ready()
    assert set(topic.exports()) == {*first, *second, *third}
    assert queue.count("failed") == 0


def test_a_bridge_keeps_its_jobs_while_kafka_is_slow(
    queue: ExportQueue, topic: Topic, bridges: Bridges, broker: Broker
) -> None:
    with bridges.run() as bridge:
        broker.proxy.apply(Conditions(silent=True))
        queue.add_exports(*(exports := new_ids(1)))
        eventually(lambda: queue.count("active") == 1, what="the job is active")
        (job,) = queue.jobs()
        held = queue.lock_milliseconds(job)
        lowest = eventually(lambda: low if (low := queue.lock_milliseconds(job)) < held - 5_000 else 0)
        eventually(lambda: queue.lock_milliseconds(job) > lowest + 2_000, what="the lock is renewed")
        broker.proxy.heal()
        eventually(queue.empty, what="the queue is empty")
        assert bridge.process.poll() is None
    assert set(topic.exports()) == set(exports)


def test_a_bridge_that_is_stopped_returns_its_jobs_to_the_queue(
    queue: ExportQueue, topic: Topic, bridges: Bridges, broker: Broker
) -> None:
    with bridges.run() as bridge:
        broker.proxy.apply(Conditions(silent=True))
        queue.add_exports(*(exports := new_ids(3)))
        eventually(lambda: queue.count("active") == len(exports), what="the jobs are active")
        bridge.process.terminate()
        assert bridge.process.wait(30) == 0
    assert (queue.count("active"), queue.count("wait")) == (0, len(exports))
    assert {queue.field(job, "atm") for job in queue.jobs()} <= {"", "0"}
    broker.proxy.heal()
    with bridges.run():
        eventually(queue.empty, what="the queue is empty")
    assert set(topic.exports()) == set(exports)


def test_a_bridge_works_on_when_redis_is_back(
    queue: ExportQueue, topic: Topic, bridges: Bridges, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as life:
        first = life.enter_context(redis_service.start(tmp_path / "restarted"))
        before = ExportQueue(first, queue.script)
        with bridges.run(first.environment()) as bridge:
            before.add_exports(*(exports := new_ids(5)))
            eventually(before.empty, what="the queue is empty")
            life.close()
            eventually(lambda: not bridge.ready(), what="it is not ready")
            assert "redis" in json.loads(bridge.get("/readyz")[1])
            second = life.enter_context(redis_service.start(tmp_path / "restarted", first.port))
            after = ExportQueue(second, queue.script)
            after.add_exports(*(more := new_ids(5)))
            eventually(after.empty, what="the queue is empty")
            eventually(bridge.ready, what="it is ready")
    assert set(topic.exports()) == {*exports, *more}


def test_a_bridge_stops_that_gets_sigterm_while_it_loads_its_libraries(
    bridges: Bridges, installed: Path, tmp_path: Path
) -> None:
    (hook := tmp_path / "hook.mjs").write_text(
        "import { registerHooks } from 'node:module'\n"
        "const resolve = (name, context, next) => {\n"
        "  if (name === 'bullmq') process.kill(process.pid, 'SIGTERM')\n"
        "  return next(name, context)\n"
        "}\n"
        "registerHooks({ resolve })\n"
    )
    command: list[str | Path] = [bridge_service.node(), "--import", hook, installed]

    ended = subprocess.run(command, env=dict(bridges.settings), capture_output=True, timeout=60, check=False)

    assert ended.returncode == 0
    assert b'"stopped"' in ended.stdout


def test_a_redis_that_does_not_respond_is_noticed(
    queue: ExportQueue, topic: Topic, bridges: Bridges, redis: Redis
) -> None:
    queue.add_exports(*(exports := new_ids(2)))
    with tcp_proxy(redis.port) as proxy, bridges.run({"REDIS_PORT": str(proxy.port)}) as bridge:
        eventually(queue.empty, what="the queue is empty")
        proxy.apply(Conditions(silent=True))
        queue.add_exports(*(more := new_ids(2)))
        eventually(lambda: not bridge.ready(), what="it is not ready")
        assert "receive" in json.loads(bridge.get("/readyz")[1])["redis"]
        proxy.heal()
        eventually(queue.empty, what="the queue is empty")
        eventually(bridge.ready, what="it is ready")
    assert set(topic.exports()) == {*exports, *more}


def test_an_operation_that_redis_refuses_is_logged_once(
    queue: ExportQueue, topic: Topic, bridges: Bridges, redis: Redis
) -> None:
    with bridges.run() as bridge:
        redis.run("replicaof", "127.0.0.1", str(free_port()))
        eventually(lambda: int(_refusals(redis)) > 20, what="the bridge has tried again often")
        redis.run("replicaof", "no", "one")
        queue.add_exports(*(exports := new_ids(2)))
        eventually(queue.empty, what="the queue is empty")
        reasons = Counter(each["reason"] for each in bridge.lines() if "operation on the queue" in each["message"])
    assert any("READONLY" in reason for reason in reasons)
    assert set(reasons.values()) == {1}
    assert set(topic.exports()) == set(exports)


def _refusals(redis: Redis) -> str:
    found = re.search(r"errorstat_READONLY:count=(\d+)", redis.run("info", "errorstats"))
    return found[1] if found else "0"


def test_a_bridge_stops_while_redis_is_down(bridges: Bridges, tmp_path: Path) -> None:
    with contextlib.ExitStack() as life:
        gone = life.enter_context(redis_service.start(tmp_path / "gone"))
        with bridges.run(gone.environment()) as bridge:
            life.close()
            eventually(lambda: not bridge.ready(), what="it is not ready")
            bridge.process.terminate()
            assert bridge.process.wait(30) == 0


def test_a_job_that_is_no_request_fails_alone(queue: ExportQueue, topic: Topic, bridges: Bridges) -> None:
    ids = {"projectId": PROJECT, "batchExportId": "x"}
    wrong: list[dict[str, Any]] = [{}, {"payload": None}, {"payload": {"projectId": PROJECT}}]
    wrong += [{"payload": ids | each} for each in _WRONG]
    queue.add(*wrong)
    queue.add_exports(*(exports := new_ids(2)))
    with bridges.run() as bridge:
        eventually(lambda: queue.count("failed") == len(wrong), what="the wrong jobs failed")
        eventually(lambda: set(topic.exports()) == set(exports), what="the others are published")
        eventually(lambda: len(queue.jobs()) == len(wrong), what="the others are completed")
    failed = [each for each in bridge.lines() if each["level"] == "ERROR"]
    assert len(failed) == len(wrong)
    assert all("is no id: a text of 1 to 512 characters is expected" in each["reason"] for each in failed)


_WRONG = (
    {"projectId": 7},
    {"projectId": ""},
    {"batchExportId": None},
    {"batchExportId": "a\u0000b"},
    {"batchExportId": "x" * 513},
    {"batchExportId": ["x"]},
)
