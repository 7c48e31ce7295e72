"""The user cancels and retries at the worst moments; and a pod's clock is wrong by an hour."""

import sys
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import update

from config.events import Status
from config.tables import batch_exports
from tests.faults.case import Case, run_case
from tests.faults.checkpoints import CHECKPOINTS, Checkpoint, stop_while_reading
from tests.faults.invariants import Expectation
from tests.faults.source import LARGE, PROJECT, SMALL
from tests.faults.system import LEASE, System
from tests.support import selection
from tests.support.barrier import Barrier
from tests.support.daemons import eventually, waybill
from tests.support.responses import hold, hold_response, refuse

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

CANCELLED = Expectation(statuses=frozenset({"CANCELLED"}))
EITHER = Expectation(statuses=frozenset({"CANCELLED", "COMPLETED"}))


def _cancel(system: System, export_id: str) -> bool:
    """Cancel as Langfuse does: only exports that have not ended yet."""
    open_ = batch_exports.c.status.in_([Status.QUEUED, Status.PROCESSING])
    statement = update(batch_exports).where(batch_exports.c.id == export_id, open_).values(status=Status.CANCELLED)
    with system.engine.begin() as connection:
        return connection.execute(statement).rowcount == 1


def _queued(system: System) -> None:
    export_id = system.insert()
    assert _cancel(system, export_id)
    system.publish_requests(export_id, times=2)
    system.pause(1, 2)
    assert system.outcomes(export_id) == []


def _at(checkpoint: Checkpoint) -> Callable[[System], None]:
    def run(system: System) -> None:
        barrier = Barrier()
        checkpoint.arm(system, barrier)
        export_id = system.request(system.random.choice(checkpoint.queries))
        barrier.wait_until_reached()
        assert _cancel(system, export_id)
        system.pause(0, 2)
        barrier.release()

    return run


def _while_it_waits(system: System) -> None:
    """Cancel between two attempts."""
    system.servers.clickhouse_proxy.add(selection.reads_rows, refuse(503, "Overloaded"))
    export_id = system.request()
    system.wait_for_retries(export_id)
    while not _cancel(system, export_id):
        system.pause(0, 0.1)


def _with_redelivery(system: System) -> None:
    export_id, barrier = stop_while_reading(system)
    ringing = threading.Thread(target=lambda: system.publish_requests(export_id, times=5))
    ringing.start()
    assert _cancel(system, export_id)
    ringing.join()
    barrier.release()
    system.pause(1, 2)


def _as_it_completes(system: System) -> None:
    barrier = Barrier()
    system.servers.store_proxy.add(selection.puts_manifest, hold_response(barrier), times=1)
    export_id = system.request(system.random.choice((LARGE, SMALL)))
    barrier.wait_until_reached()
    opening = threading.Timer(system.random.uniform(0, 0.03), barrier.release)
    opening.start()
    system.pause(0, 0.06)
    cancelled = _cancel(system, export_id)
    opening.join()
    system.wait_for(export_id, "CANCELLED" if cancelled else "COMPLETED")


def _retried(system: System) -> None:
    system.servers.clickhouse_proxy.add(selection.reads_rows, refuse(503, "Overloaded"))
    export_id = system.request()
    system.wait_for(export_id, "FAILED")
    eventually(lambda: (system.notice(export_id) or {}).get("state") == "sent", what="the failure notice is sent")
    system.servers.clickhouse_proxy.clear()
    done = waybill("retry", PROJECT, export_id, environment=system.settings)
    assert done.returncode == 0, done.stderr
    system.wait_for(export_id, "COMPLETED")


def _skewed(seconds: float) -> Callable[[System], None]:
    """A pod with a wrong clock takes no exports from others; when it dies, its exports are claimed in time."""

    def run(system: System) -> None:
        launcher = [sys.executable, "-m", "tests.faults.skewed_daemon", "consumer", str(seconds)]
        held, barrier = stop_while_reading(system)
        other = system.isolated_consumer(launcher=launcher)
        system.pause(LEASE, LEASE * 2)
        assert system.outcomes(held) == [None]
        barrier.release()
        system.wait_for(held, "COMPLETED")

        barrier = Barrier()
        system.servers.clickhouse_proxy.add(selection.reads_rows, hold(barrier), times=2)
        left = [system.request(LARGE) for _ in range(2)]
        for each in left:
            system.wait_until_claimed(each)
        other.process.kill()
        other.process.wait()
        barrier.release()
        for each in left:
            system.wait_for(each, "COMPLETED", seconds=60)

    return run


CASES = (
    Case("cancel before it is claimed", _queued, CANCELLED),
    *(Case(f"cancel {checkpoint.name}", _at(checkpoint), CANCELLED) for checkpoint in CHECKPOINTS[:-1]),
    Case("cancel between two attempts", _while_it_waits, CANCELLED),
    Case("cancel and redelivery at the same time", _with_redelivery, CANCELLED),
    Case("cancel as it completes", _as_it_completes, EITHER),
    Case("retry of a failed export", _retried, Expectation(events=("FAILED", "COMPLETED"))),
    Case("a pod's clock an hour ahead", _skewed(3600)),
    Case("a pod's clock an hour behind", _skewed(-3600)),
)

OFTEN = (
    "cancel while reading",
    "cancel before completing the upload",
    "cancel as it completes",
    "retry of a failed export",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
