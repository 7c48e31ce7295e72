"""The user cancels, asks again and retries at the worst moment; and a pod's clock is an hour off."""

import sys
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import update

from config.events import Status
from config.tables import batch_exports
from tests.faults.case import Case, play
from tests.faults.checkpoints import STAGES, Stage, halfway
from tests.faults.invariants import Promise
from tests.faults.source import LARGE, PROJECT, SMALL
from tests.faults.system import LEASE, Scene
from tests.support import selection
from tests.support.barrier import Gate
from tests.support.daemons import eventually, waybill
from tests.support.responses import hold, hold_answer, refuse

pytestmark = pytest.mark.faults
CREW = (Scene.consumer, Scene.notifier)

CANCELLED = Promise(statuses=frozenset({"CANCELLED"}))
EITHER = Promise(statuses=frozenset({"CANCELLED", "COMPLETED"}))


def _cancel(scene: Scene, export_id: str) -> bool:
    """Cancel as the application does: whatever has not ended yet."""
    open_ = batch_exports.c.status.in_([Status.QUEUED, Status.PROCESSING])
    statement = update(batch_exports).where(batch_exports.c.id == export_id, open_).values(status=Status.CANCELLED)
    with scene.engine.begin() as connection:
        return connection.execute(statement).rowcount == 1


def _queued(scene: Scene) -> None:
    export_id = scene.ask()
    assert _cancel(scene, export_id)
    scene.ring(export_id, times=2)
    scene.pause(1, 2)
    assert scene.outcomes(export_id) == []


def _at(stage: Stage) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        gate = Gate()
        stage.arm(scene, gate)
        export_id = scene.request(scene.random.choice(stage.queries))
        gate.reached()
        assert _cancel(scene, export_id)
        scene.pause(0, 2)
        gate.open()

    return do


def _while_it_waits(scene: Scene) -> None:
    """Between two attempts."""
    scene.servers.rows.add(selection.reads_rows, refuse(503, "Overloaded"))
    export_id = scene.request()
    scene.retried(export_id)
    while not _cancel(scene, export_id):
        scene.pause(0, 0.1)


def _with_redelivery(scene: Scene) -> None:
    export_id, gate = halfway(scene)
    ringing = threading.Thread(target=lambda: scene.ring(export_id, times=5))
    ringing.start()
    assert _cancel(scene, export_id)
    ringing.join()
    gate.open()
    scene.pause(1, 2)


def _as_it_completes(scene: Scene) -> None:
    gate = Gate()
    scene.servers.store.add(selection.puts_manifest, hold_answer(gate), times=1)
    export_id = scene.request(scene.random.choice((LARGE, SMALL)))
    gate.reached()
    opening = threading.Timer(scene.random.uniform(0, 0.03), gate.open)
    opening.start()
    scene.pause(0, 0.06)
    cancelled = _cancel(scene, export_id)
    opening.join()
    scene.becomes(export_id, "CANCELLED" if cancelled else "COMPLETED")


def _retried(scene: Scene) -> None:
    scene.servers.rows.add(selection.reads_rows, refuse(503, "Overloaded"))
    export_id = scene.request()
    scene.becomes(export_id, "FAILED")
    eventually(lambda: (scene.notice(export_id) or {}).get("state") == "sent", what="the failure is told")
    scene.servers.rows.clear()
    done = waybill("retry", PROJECT, export_id, environment=scene.settings)
    assert done.returncode == 0, done.stderr
    scene.becomes(export_id, "COMPLETED")


def _skewed(seconds: float) -> Callable[[Scene], None]:
    """A pod with a wrong clock takes nothing from others, and what it leaves when it dies is taken up in time."""

    def do(scene: Scene) -> None:
        launcher = [sys.executable, "-m", "tests.faults.skewed_consumer", str(seconds)]
        held, gate = halfway(scene)
        other = scene.victim(launcher=launcher)
        scene.pause(LEASE, LEASE * 2)
        assert scene.outcomes(held) == [None]
        gate.open()
        scene.becomes(held, "COMPLETED")

        gate = Gate()
        scene.servers.rows.add(selection.reads_rows, hold(gate), times=2)
        left = [scene.request(LARGE) for _ in range(2)]
        for each in left:
            scene.running(each)
        other.process.kill()
        other.process.wait()
        gate.open()
        for each in left:
            scene.becomes(each, "COMPLETED", seconds=60)

    return do


CASES = (
    Case("cancel before it is claimed", _queued, CANCELLED),
    *(Case(f"cancel {stage.name}", _at(stage), CANCELLED) for stage in STAGES[:-1]),
    Case("cancel between two attempts", _while_it_waits, CANCELLED),
    Case("cancel and redelivery at once", _with_redelivery, CANCELLED),
    Case("cancel as it completes", _as_it_completes, EITHER),
    Case("retry of a failed export", _retried, Promise(events=("FAILED", "COMPLETED"))),
    Case("the clock of a pod an hour ahead", _skewed(3600)),
    Case("the clock of a pod an hour behind", _skewed(-3600)),
)

OFTEN = (
    "cancel in mid-read",
    "cancel before completing the upload",
    "cancel as it completes",
    "retry of a failed export",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
