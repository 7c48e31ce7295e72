"""The stages of an export at which a worker can be stopped, each reached by a gate in a proxy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.source import LARGE, SMALL
from tests.faults.system import Scene
from tests.support import selection
from tests.support.barrier import Gate
from tests.support.responses import hold, hold_answer, hold_at

Arm = Callable[[Scene, Gate], None]


@dataclass(frozen=True)
class Stage:
    """Where a worker is stopped: `arm` puts a gate in its way, `go_on` leads from there to the stage itself."""

    name: str
    arm: Arm
    queries: tuple[Mapping[str, Any], ...] = (LARGE, SMALL)
    formats: tuple[str, ...] = ("CSV", "JSONL", "PARQUET")
    go_on: Callable[[Scene, Gate, str], None] = lambda *_: None


def _claimed(scene: Scene, gate: Gate) -> None:
    scene.servers.rows.add(selection.anything, hold(gate), times=1)


def _reading(scene: Scene, gate: Gate) -> None:
    scene.servers.rows.add(selection.reads_rows, hold_at(scene.random.uniform(0.05, 0.95), gate), times=1)


def _sending(scene: Scene, gate: Gate) -> None:
    act = scene.random.choice((hold, hold_answer))
    scene.servers.store.add(selection.sends_part(scene.random.randint(1, 3)), act(gate), times=1)


def _completing(scene: Scene, gate: Gate) -> None:
    scene.servers.store.add(lambda each: selection.completes(each) or selection.puts_file(each), hold(gate), times=1)


def _completed(scene: Scene, gate: Gate) -> None:
    scene.servers.store.add(
        lambda each: selection.completes(each) or selection.puts_file(each), hold_answer(gate), times=1
    )


def _described(scene: Scene, gate: Gate) -> None:
    scene.servers.store.add(selection.puts_manifest, hold_answer(gate), times=1)


def _written(scene: Scene, gate: Gate, export_id: str) -> None:
    scene.servers.kafka_wire.refuse()
    gate.open()
    scene.becomes(export_id, "COMPLETED")


STAGES = (
    Stage("after claim", _claimed),
    Stage("in mid-read", _reading),
    Stage("at part n", _sending, (LARGE,), ("CSV", "JSONL")),  # Parquet is packed into fewer parts
    Stage("before completing the upload", _completing),
    Stage("after completing it", _completed),
    Stage("before the row", _described),
    Stage("after the row and before the event", _described, go_on=_written),
)


def halfway(scene: Scene) -> tuple[str, Gate]:
    """Have an export wait in the middle of its rows; its id, and the gate before which it waits."""
    gate = Gate()
    scene.servers.rows.add(selection.reads_rows, hold_at(scene.random.uniform(0.1, 0.9), gate), times=1)
    export_id = scene.request(LARGE)
    gate.reached()
    return export_id, gate
