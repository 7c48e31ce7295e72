"""The checkpoints of an export at which a test can stop its worker, each a barrier in a proxy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.types import FORMATS
from tests.faults.source import LARGE, SMALL
from tests.faults.system import System
from tests.support import selection
from tests.support.barrier import Barrier
from tests.support.responses import hold, hold_at, hold_response

# Files of formats that compress themselves have too few parts.
_LARGE_FILES = tuple(name for name, each in FORMATS.items() if not each.packs_itself)

Arm = Callable[[System, Barrier], None]


@dataclass(frozen=True)
class Checkpoint:
    """Where a worker is stopped: `arm` adds a barrier to a proxy, `go_on` leads from there to the checkpoint itself."""

    name: str
    arm: Arm
    queries: tuple[Mapping[str, Any], ...] = (LARGE, SMALL)
    formats: tuple[str, ...] = tuple(FORMATS)
    go_on: Callable[[System, Barrier, str], None] = lambda *_: None


def _claimed(system: System, barrier: Barrier) -> None:
    system.servers.clickhouse_proxy.add(selection.anything, hold(barrier), times=1)


def _reading(system: System, barrier: Barrier) -> None:
    system.servers.clickhouse_proxy.add(
        selection.reads_rows, hold_at(system.random.uniform(0.05, 0.95), barrier), times=1
    )


def _sending(system: System, barrier: Barrier) -> None:
    respond = system.random.choice((hold, hold_response))
    system.servers.store_proxy.add(selection.sends_part(system.random.randint(1, 3)), respond(barrier), times=1)


def _completing(system: System, barrier: Barrier) -> None:
    system.servers.store_proxy.add(
        lambda each: selection.completes(each) or selection.puts_file(each), hold(barrier), times=1
    )


def _completed(system: System, barrier: Barrier) -> None:
    system.servers.store_proxy.add(
        lambda each: selection.completes(each) or selection.puts_file(each), hold_response(barrier), times=1
    )


def _described(system: System, barrier: Barrier) -> None:
    system.servers.store_proxy.add(selection.puts_manifest, hold_response(barrier), times=1)


def _written(system: System, barrier: Barrier, export_id: str) -> None:
    system.servers.kafka_proxy.refuse()
    barrier.release()
    system.wait_for(export_id, "COMPLETED")


CHECKPOINTS = (
    Checkpoint("after claim", _claimed),
    Checkpoint("while reading", _reading),
    Checkpoint("while uploading a part", _sending, (LARGE,), _LARGE_FILES),
    Checkpoint("before completing the upload", _completing),
    Checkpoint("after completing the upload", _completed),
    Checkpoint("before the row update", _described),
    Checkpoint("after the row update and before the event", _described, go_on=_written),
)


def stop_while_reading(system: System) -> tuple[str, Barrier]:
    """Request an export and stop it in the middle of its rows; returns its id, and the barrier at which it waits."""
    barrier = Barrier()
    system.servers.clickhouse_proxy.add(
        selection.reads_rows, hold_at(system.random.uniform(0.1, 0.9), barrier), times=1
    )
    export_id = system.request(LARGE)
    barrier.wait_until_reached()
    return export_id, barrier
