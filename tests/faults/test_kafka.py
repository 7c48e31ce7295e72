"""Kafka is unavailable, rebalances, repeats, reorders and loses events: only the latency of exports changes."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from tests.faults.case import FULL, Case, run_case
from tests.faults.checkpoints import stop_while_reading
from tests.faults.source import LARGE
from tests.faults.system import System
from tests.support.daemons import eventually

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

AWAY = 120.0 if FULL else 8.0


def _away(system: System) -> None:
    export_id, barrier = stop_while_reading(system)
    system.servers.kafka.stop()
    system.pause(0, 2)
    barrier.release()
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]
    time.sleep(AWAY)
    system.servers.kafka.start()


def _cut_now_and_then(system: System) -> None:
    ids = []
    for _ in range(5):
        ids.append(system.request())
        system.servers.kafka_proxy.cut()
        system.pause(0, 0.5)
    for each in ids:
        system.wait_for(each, "COMPLETED")


def _rebalance(system: System) -> None:
    export_id, barrier = stop_while_reading(system)
    system.consumer()
    barrier.release()
    system.wait_for(export_id, "COMPLETED")
    assert system.outcomes(export_id) == ["completed"]


def _pods_join_and_leave(system: System) -> None:
    ids = [system.request() for _ in range(3)]
    for _ in range(2):
        pods = [system.consumer()]
        ids += [system.request() for _ in range(3)]
        system.pause(0, 1)
        pods.append(system.consumer())
        ids += [system.request() for _ in range(3)]
        system.random.shuffle(pods)
        for pod in pods:
            pod.process.terminate()
            system.pause(0, 1)
            ids.append(system.request())
        for pod in pods:
            assert pod.process.wait(timeout=90) == 0
    for each in ids:
        system.wait_for(each, "COMPLETED")
    assert {tuple(system.outcomes(each)) for each in ids} <= {("completed",), ("released", "completed")}


def _repeated(times: int) -> Callable[[System], None]:
    def run(system: System) -> None:
        export_id = system.insert()
        system.publish_requests(export_id, times=times)
        system.wait_for(export_id, "COMPLETED")
        _handled(system, export_id)

    return run


def _again_later(system: System) -> None:
    export_id = system.request()
    system.wait_for(export_id, "COMPLETED")
    system.pause(0.5, 2)
    system.publish_requests(export_id)
    _handled(system, export_id)


def _handled(system: System, export_id: str) -> None:
    """Wait until all earlier request events have been handled, and check that there was one attempt."""
    last = system.request()
    system.wait_for(last, "COMPLETED")
    system.pause(1, 2)
    assert system.outcomes(export_id) == ["completed"]


def _out_of_order(system: System) -> None:
    """Events arrive in another order than their rows."""
    ids = [system.insert() for _ in range(4)]
    system.random.shuffle(ids)
    system.publish_requests(*ids)
    for each in ids:
        system.wait_for(each, "COMPLETED")
        assert system.outcomes(each) == ["completed"]


def _poison(system: System) -> None:
    ids = [system.insert() for _ in range(2)]
    bad = [b"not json", b"\xff\x00", b"[]", b'{"projectId": 1}', b"x" * 900_000]
    system.publish_requests(ids[0])
    system.publish(*system.random.sample(bad, 3))
    system.publish_requests(ids[1])
    for each in ids:
        system.wait_for(each, "COMPLETED")


def _from_the_start(system: System) -> None:
    """A new consumer group reads every old event."""
    export_id = system.request()
    system.wait_for(export_id, "COMPLETED")
    reader = system.isolated_consumer()
    eventually(lambda: reader.metric("waybill_requests_total", verdict="finished") > 0, what="old events are read")
    system.pause(1, 2)
    assert system.outcomes(export_id) == ["completed"]


def _recreated(system: System) -> None:
    topic = system.settings["WAYBILL_REQUESTS_TOPIC"]
    first = system.request(LARGE)
    admin = AdminClient({"bootstrap.servers": system.settings["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
    admin.delete_topics([topic])[topic].result(30)
    system.pause(1, 3)
    second = system.insert()
    eventually(lambda: topic not in admin.list_topics(timeout=20).topics, what="the topic is gone")
    system.servers.kafka.running.create_topics(topic)
    third = system.request()
    for each in (first, second, third):
        system.wait_for(each, "COMPLETED")
    (consumer,) = system.alive("consumer")
    eventually(consumer.ready, seconds=90, what="the consumer is back in its group")


CASES = (
    Case("broker unavailable for two minutes during an export", _away, scaled="" if FULL else f"{AWAY:g} s"),
    Case("connections cut now and then", _cut_now_and_then),
    Case("a rebalance during an export", _rebalance),
    Case("a second and third pod joining and leaving repeatedly", _pods_join_and_leave),
    Case("the same event twice at the same time", _repeated(2)),
    Case("the same event a hundred times", _repeated(100)),
    Case("the same event an hour apart", _again_later, scaled="seconds after the export has ended"),
    Case("events out of order", _out_of_order),
    Case("a poison message in the middle", _poison),
    Case("offsets reset to the start", _from_the_start),
    Case("the topic deleted and created again", _recreated),
)

OFTEN = (
    "connections cut now and then",
    "a rebalance during an export",
    "the same event a hundred times",
    "a poison message in the middle",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
