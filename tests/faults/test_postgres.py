"""The database fails or restarts, refuses writes, locks and deletes rows: the outcome is written once."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import delete, select, update

from config.tables import batch_exports, runs
from tests.faults.case import Case, run_case
from tests.faults.checkpoints import stop_while_reading
from tests.faults.source import LARGE, SMALL
from tests.faults.system import LEASE, System
from tests.support import selection
from tests.support.barrier import Barrier
from tests.support.daemons import eventually
from tests.support.responses import hold_response
from tests.support.tcp_proxy import Conditions

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

Reach = Callable[[System], tuple[str, Barrier]]
"""Requests an export and stops it somewhere; gives its id, and the barrier at which it waits."""


def _stop_before_settling(system: System) -> tuple[str, Barrier]:
    """Request an export and stop it when its file is complete, before its outcome is written."""
    barrier = Barrier()
    system.servers.store_proxy.add(selection.puts_manifest, hold_response(barrier), times=1)
    export_id = system.request(system.random.choice((LARGE, SMALL)))
    barrier.wait_until_reached()
    return export_id, barrier


def _away(seconds: tuple[float, float], reach: Reach) -> Callable[[System], None]:
    def run(system: System) -> None:
        _, barrier = reach(system)
        system.servers.postgres_proxy.refuse()
        barrier.release()
        system.pause(*seconds)

    return run


def _silent(system: System) -> None:
    _, barrier = _stop_before_settling(system)
    system.servers.postgres_proxy.apply(Conditions(silent=True))
    barrier.release()
    system.pause(0.5, 2 * LEASE)
    system.servers.postgres_proxy.cut()


def _cut_while_settling(system: System) -> None:
    """The connection is cut at any byte of the last transaction: it may be committed without an answer."""
    _, barrier = _stop_before_settling(system)
    size = system.random.randint(100, 3000)
    conditions = system.random.choice((Conditions(cut_after_up=size), Conditions(cut_after_down=size)))
    system.servers.postgres_proxy.apply(conditions)
    barrier.release()
    system.pause(1, 3)


def _restarted(reach: Reach) -> Callable[[System], None]:
    def run(system: System) -> None:
        _, barrier = reach(system)
        system.servers.postgres.stop()
        system.pause(0, 1)
        barrier.release()
        system.pause(0, 2)
        system.servers.postgres.start()

    return run


@contextlib.contextmanager
def _set(system: System, name: str, value: str) -> Iterator[None]:
    """Change a default of this database while the block runs; open sessions are terminated."""
    _alter(system, f"SET {name} = '{value}'")
    try:
        yield
    finally:
        _alter(system, f"RESET {name}")


def _alter(system: System, change: str) -> None:
    database = system.engine.url.database
    with psycopg.connect(system.servers.postgres.running.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} {change}")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
    system.engine.dispose()


def _read_only(system: System) -> None:
    _, barrier = _stop_before_settling(system)
    with _set(system, "default_transaction_read_only", "on"):
        barrier.release()
        system.pause(1, 5)


def _row_locked(system: System) -> None:
    export_id, barrier = _stop_before_settling(system)
    with system.engine.begin() as connection:
        connection.execute(select(batch_exports).where(batch_exports.c.id == export_id).with_for_update())
        barrier.release()
        system.pause(1, 2 * LEASE)


def _deadlock(system: System) -> None:
    """The case locks the run first and the row second; Waybill does the opposite."""
    export_id, barrier = _stop_before_settling(system)
    with contextlib.suppress(Exception), system.engine.begin() as connection:
        run = runs.c.export_id == export_id
        connection.execute(update(runs).where(run).values(worker=runs.c.worker))
        barrier.release()
        system.pause(0.3, 1.5)
        row = batch_exports.c.id == export_id
        connection.execute(update(batch_exports).where(row).values(name="renamed"))


def _serialization(system: System) -> None:
    with _set(system, "default_transaction_isolation", "repeatable read"):
        export_id, barrier = _stop_before_settling(system)
        with system.engine.begin() as connection:
            row = batch_exports.c.id == export_id
            connection.execute(update(batch_exports).where(row).values(name="renamed"))
            barrier.release()
            system.pause(0.5, 2)
        system.wait_for(export_id, "COMPLETED")


def _deleted(reach: Reach) -> Callable[[System], None]:
    def run(system: System) -> None:
        export_id, barrier = reach(system)
        with system.engine.begin() as connection:
            connection.execute(delete(batch_exports).where(batch_exports.c.id == export_id))
        system.pause(0, 1)
        barrier.release()
        system.requested.remove(export_id)
        eventually(lambda: None not in system.outcomes(export_id), what="its run is closed")
        eventually(
            lambda: not any(export_id in key for key in (*system.bucket.objects(), *system.bucket.uploads())),
            what="nothing of it is left in the store",
        )
        assert system.emails(export_id) == []
        assert not any(each["batchExportId"] == export_id for each in system.completions())

    return run


def _flapping(system: System) -> None:
    """Its connections are cut again and again while exports are requested and run."""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(0.7):
            system.servers.postgres_proxy.cut()

    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        ids = [system.request(system.random.choice((LARGE, SMALL))) for _ in range(3)]
        for each in ids:
            system.wait_for(each, "COMPLETED")
    finally:
        over.set()
        flapping.join()


CASES = (
    Case("unavailable during an export, for less than a lease", _away((0.2, LEASE / 2), stop_while_reading)),
    Case(
        "unavailable during an export, for longer than a lease",
        _away((LEASE * 1.2, LEASE * 2), stop_while_reading),
    ),
    Case("unavailable at the last update", _away((0.5, LEASE * 2), _stop_before_settling)),
    Case("silent at the last update", _silent),
    Case("cut at any byte of the last update", _cut_while_settling),
    Case("restarted during an export", _restarted(stop_while_reading)),
    Case("restarted at the last update", _restarted(_stop_before_settling)),
    Case("connections cut every second", _flapping),
    Case("read-only for a while", _read_only),
    Case("a row locked by Langfuse", _row_locked),
    Case("deadlock", _deadlock),
    Case("serialization failure", _serialization),
    Case("the row deleted during an export", _deleted(stop_while_reading)),
    Case("the row deleted before the last update", _deleted(_stop_before_settling)),
)

OFTEN = (
    "unavailable during an export, for longer than a lease",
    "cut at any byte of the last update",
    "restarted at the last update",
    "serialization failure",
    "the row deleted during an export",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
