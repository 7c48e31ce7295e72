"""Daemons that are killed, told to end, and put to sleep for longer than their lease, at every stage of an export."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.case import Case, play
from tests.faults.checkpoints import STAGES, Stage
from tests.faults.invariants import Promise
from tests.faults.system import LEASE, Scene
from tests.support.barrier import Gate
from tests.support.daemons import Daemon, eventually
from tests.support.exports import row_of
from tests.support.tcp_proxy import Weather

pytestmark = pytest.mark.faults
CREW = (Scene.rescuer, Scene.notifier)


def _reach(scene: Scene, stage: Stage) -> tuple[Daemon, Gate, str]:
    """Have a worker of its own take an export to the stage."""
    worker, gate = scene.victim(), Gate()
    stage.arm(scene, gate)
    export_id = scene.request(scene.random.choice(stage.queries), scene.random.choice(stage.formats))
    gate.reached()
    stage.go_on(scene, gate, export_id)
    return worker, gate, export_id


def _kill(stage: Stage) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        worker, gate, _ = _reach(scene, stage)
        scene.pause(0, 0.3)
        worker.process.kill()
        worker.process.wait()
        # What was on its way when its sender died may arrive or not.
        scene.random.choice((gate.open, gate.drop))()

    return do


def _terminate(stage: Stage) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        worker, gate, _ = _reach(scene, stage)
        worker.process.send_signal(signal.SIGTERM)
        scene.pause(0, 2)  # it waits for one second
        gate.open()
        assert worker.process.wait(timeout=90) == 0

    return do


def _stop(stage: Stage) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        worker, gate, export_id = _reach(scene, stage)
        worker.process.send_signal(signal.SIGSTOP)
        scene.becomes(export_id, "COMPLETED")
        scene.servers.kafka_wire.heal()
        scene.pause(0, 1)
        before = _all_of(scene, export_id)
        _wake(worker, gate)
        assert _all_of(scene, export_id) == before

    return do


def _two_zombies(scene: Scene) -> None:
    stages = [scene.random.choice(STAGES[:-1]) for _ in range(2)]
    first, first_gate, export_id = _reach(scene, stages[0])
    first.process.send_signal(signal.SIGSTOP)
    second_gate = Gate()
    stages[1].arm(scene, second_gate)
    second_gate.reached()
    # The rescuer has it now: the second to sleep on it, while a third worker does it.
    (second,) = [each for each in scene.living("consumer") if each is not first]
    second.process.send_signal(signal.SIGSTOP)
    scene.rescuer()
    scene.becomes(export_id, "COMPLETED")
    before = _all_of(scene, export_id)
    zombies = [(first, first_gate), (second, second_gate)]
    scene.random.shuffle(zombies)
    for each, gate in zombies:
        _wake(each, gate)
        assert _all_of(scene, export_id) == before


def _wake(zombie: Daemon, gate: Gate) -> None:
    zombie.process.send_signal(signal.SIGCONT)
    gate.open()
    eventually(lambda: zombie.metric("waybill_exports_running") == 0, what="the zombie gives up")


def _all_of(scene: Scene, export_id: str) -> list[Any]:
    """The row and the objects, with all that tells one writing of them from another."""
    names = [key for key in scene.bucket.objects() if export_id in key]
    heads = [scene.bucket.client.head_object(Bucket=scene.bucket.name, Key=key) for key in names]
    kept = ("ETag", "LastModified", "Metadata", "ContentLength")
    return [row_of(scene.engine, export_id), *({name: head[name] for name in kept} for head in heads)]


def _notifier_dies_before(scene: Scene) -> None:
    notifier, _ = _mail_on_its_way(scene)
    scene.pause(0, 1)
    notifier.process.kill()
    notifier.process.wait()
    scene.servers.smtp_wire.cut()
    scene.servers.smtp_wire.heal()
    scene.notifier()


def _notifier_dies_after(scene: Scene) -> None:
    notifier, export_id = _mail_on_its_way(scene)
    scene.servers.smtp_wire.be(Weather(delay=1.5))  # the server's answer is late
    eventually(lambda: scene.mails(export_id), what="the mail is accepted")
    notifier.process.kill()
    notifier.process.wait()
    scene.servers.heal()
    scene.notifier()


def _notifier_ends(scene: Scene) -> None:
    notifier, _ = _mail_on_its_way(scene)
    notifier.process.send_signal(signal.SIGTERM)
    scene.pause(0, 2)
    scene.servers.smtp_wire.heal()
    assert notifier.process.wait(timeout=90) == 0
    scene.notifier()


def _notifier_sleeps(scene: Scene) -> None:
    notifier, export_id = _mail_on_its_way(scene)
    notifier.process.send_signal(signal.SIGSTOP)
    scene.servers.smtp_wire.cut()
    scene.servers.smtp_wire.heal()
    scene.notifier()
    eventually(lambda: scene.mails(export_id), what="the other notifier sends it")
    notifier.process.send_signal(signal.SIGCONT)
    scene.pause(LEASE / 2, LEASE)


def _mail_on_its_way(scene: Scene) -> tuple[Daemon, str]:
    """Have a mail stuck between a notifier and the server; the notifier, and the export that it is about."""
    alive = scene.living("notify")
    notifier = alive[0] if alive else scene.notifier()
    scene.servers.smtp_wire.be(Weather(silent=True))
    export_id = scene.request()
    eventually(lambda: (scene.notice(export_id) or {}).get("state") == "sending", what="a mail is on its way")
    return notifier, export_id


CASES = (
    *(Case(f"kill -9 {stage.name}", _kill(stage)) for stage in STAGES),
    *(Case(f"SIGTERM {stage.name}", _terminate(stage)) for stage in STAGES),
    *(Case(f"SIGSTOP for longer than the lease {stage.name}, then SIGCONT", _stop(stage)) for stage in STAGES),
    Case("two zombies", _two_zombies),
    Case("the notifier killed before the mail was accepted", _notifier_dies_before),
    Case("the notifier killed after the mail was accepted", _notifier_dies_after, Promise(repeats=2)),
    Case("SIGTERM to the notifier while a mail is on its way", _notifier_ends),
    Case("the notifier asleep for longer than its lease", _notifier_sleeps),
)

OFTEN = (
    "kill -9 in mid-read",
    "kill -9 at part n",
    "kill -9 after completing it",
    "kill -9 after the row and before the event",
    "SIGTERM at part n",
    "SIGSTOP for longer than the lease before completing the upload, then SIGCONT",
    "two zombies",
    "the notifier killed before the mail was accepted",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
