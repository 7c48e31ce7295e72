"""Kafka goes away, rebalances, repeats, reorders and forgets: the row is the truth, and events change only latency."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from tests.faults.case import FULL, Case, play
from tests.faults.checkpoints import halfway
from tests.faults.source import LARGE
from tests.faults.system import Scene
from tests.support.daemons import eventually

pytestmark = pytest.mark.faults
CREW = (Scene.consumer, Scene.notifier)

AWAY = 120.0 if FULL else 8.0


def _away(scene: Scene) -> None:
    export_id, gate = halfway(scene)
    scene.servers.kafka.off()
    scene.pause(0, 2)
    gate.open()
    scene.becomes(export_id, "COMPLETED")
    assert scene.outcomes(export_id) == ["completed"]
    time.sleep(AWAY)
    scene.servers.kafka.on()


def _cut_now_and_then(scene: Scene) -> None:
    ids = []
    for _ in range(5):
        ids.append(scene.request())
        scene.servers.kafka_wire.cut()
        scene.pause(0, 0.5)
    for each in ids:
        scene.becomes(each, "COMPLETED")


def _rebalance(scene: Scene) -> None:
    export_id, gate = halfway(scene)
    scene.consumer()
    gate.open()
    scene.becomes(export_id, "COMPLETED")
    assert scene.outcomes(export_id) == ["completed"]


def _coming_and_going(scene: Scene) -> None:
    ids = [scene.request() for _ in range(3)]
    for _ in range(2):
        pods = [scene.consumer()]
        ids += [scene.request() for _ in range(3)]
        scene.pause(0, 1)
        pods.append(scene.consumer())
        ids += [scene.request() for _ in range(3)]
        scene.random.shuffle(pods)
        for pod in pods:
            pod.process.terminate()
            scene.pause(0, 1)
            ids.append(scene.request())
        for pod in pods:
            assert pod.process.wait(timeout=90) == 0
    for each in ids:
        scene.becomes(each, "COMPLETED")
    assert {tuple(scene.outcomes(each)) for each in ids} <= {("completed",), ("released", "completed")}


def _repeated(times: int) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        export_id = scene.ask()
        scene.ring(export_id, times=times)
        scene.becomes(export_id, "COMPLETED")
        _answered(scene, export_id)

    return do


def _again_later(scene: Scene) -> None:
    export_id = scene.request()
    scene.becomes(export_id, "COMPLETED")
    scene.pause(0.5, 2)
    scene.ring(export_id)
    _answered(scene, export_id)


def _answered(scene: Scene, export_id: str) -> None:
    """Wait until all requests before now have been answered, and see that one attempt was all."""
    last = scene.request()
    scene.becomes(last, "COMPLETED")
    scene.pause(1, 2)
    assert scene.outcomes(export_id) == ["completed"]


def _out_of_order(scene: Scene) -> None:
    """Events come before their rows, and in another order than these."""
    ids = [scene.ask() for _ in range(4)]
    scene.random.shuffle(ids)
    scene.ring(*ids)
    for each in ids:
        scene.becomes(each, "COMPLETED")
        assert scene.outcomes(each) == ["completed"]


def _poison(scene: Scene) -> None:
    ids = [scene.ask() for _ in range(2)]
    bad = [b"not json", b"\xff\x00", b"[]", b'{"projectId": 1}', b"x" * 900_000]
    scene.ring(ids[0])
    scene.publish(*scene.random.sample(bad, 3))
    scene.ring(ids[1])
    for each in ids:
        scene.becomes(each, "COMPLETED")


def _from_the_start(scene: Scene) -> None:
    """A group that has no offsets yet reads every event there ever was."""
    export_id = scene.request()
    scene.becomes(export_id, "COMPLETED")
    reader = scene.victim()
    eventually(lambda: reader.metric("waybill_requests_total", verdict="finished") > 0, what="old events are read")
    scene.pause(1, 2)
    assert scene.outcomes(export_id) == ["completed"]


def _made_anew(scene: Scene) -> None:
    topic = scene.settings["WAYBILL_REQUESTS_TOPIC"]
    first = scene.request(LARGE)
    admin = AdminClient({"bootstrap.servers": scene.settings["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
    admin.delete_topics([topic])[topic].result(30)
    scene.pause(1, 3)
    second = scene.ask()
    eventually(lambda: topic not in admin.list_topics(timeout=20).topics, what="the topic is gone")
    scene.servers.kafka.now.create_topics(topic)
    third = scene.request()
    for each in (first, second, third):
        scene.becomes(each, "COMPLETED")
    (consumer,) = scene.living("consumer")
    eventually(consumer.ready, seconds=90, what="the consumer is back in its group")


CASES = (
    Case("broker away for two minutes in mid-export", _away, scaled="" if FULL else f"{AWAY:g} s"),
    Case("connections cut now and then", _cut_now_and_then),
    Case("a rebalance in mid-export", _rebalance),
    Case("a second and third pod joining and leaving all the time", _coming_and_going),
    Case("the same event twice at once", _repeated(2)),
    Case("the same event a hundred times", _repeated(100)),
    Case("the same event an hour apart", _again_later, scaled="seconds after the export has ended"),
    Case("events out of order", _out_of_order),
    Case("a poison message in the middle", _poison),
    Case("offsets reset to the start", _from_the_start),
    Case("the topic deleted and made anew", _made_anew),
)

OFTEN = (
    "connections cut now and then",
    "a rebalance in mid-export",
    "the same event a hundred times",
    "a poison message in the middle",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
