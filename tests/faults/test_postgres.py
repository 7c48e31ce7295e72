"""The database of jobs goes away, restarts, refuses, locks and forgets: an ending is written once."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import delete, select, update

from config.tables import batch_exports, runs
from tests.faults.case import Case, play
from tests.faults.checkpoints import halfway
from tests.faults.source import LARGE, SMALL
from tests.faults.system import LEASE, Scene
from tests.support import selection
from tests.support.barrier import Gate
from tests.support.daemons import eventually
from tests.support.responses import hold_answer
from tests.support.tcp_proxy import Weather

pytestmark = pytest.mark.faults
CREW = (Scene.consumer, Scene.notifier)


def _about_to_settle(scene: Scene) -> tuple[str, Gate]:
    """An export whose file is whole, and whose ending is the next thing that is written."""
    gate = Gate()
    scene.servers.store.add(selection.puts_manifest, hold_answer(gate), times=1)
    export_id = scene.request(scene.random.choice((LARGE, SMALL)))
    gate.reached()
    return export_id, gate


def _gone(seconds: tuple[float, float], reach: Callable[[Scene], tuple[str, Gate]]) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        _, gate = reach(scene)
        scene.servers.postgres_wire.refuse()
        gate.open()
        scene.pause(*seconds)

    return do


def _silent(scene: Scene) -> None:
    _, gate = _about_to_settle(scene)
    scene.servers.postgres_wire.be(Weather(silent=True))
    gate.open()
    scene.pause(0.5, 2 * LEASE)
    scene.servers.postgres_wire.cut()


def _cut_in_the_ending(scene: Scene) -> None:
    """The connection is cut at any byte of the last transaction: it may be committed, and nobody told."""
    _, gate = _about_to_settle(scene)
    size = scene.random.randint(100, 3000)
    weather = scene.random.choice((Weather(cut_after_up=size), Weather(cut_after_down=size)))
    scene.servers.postgres_wire.be(weather)
    gate.open()
    scene.pause(1, 3)


def _restarted(reach: Callable[[Scene], tuple[str, Gate]]) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        _, gate = reach(scene)
        scene.servers.postgres.off()
        scene.pause(0, 1)
        gate.open()
        scene.pause(0, 2)
        scene.servers.postgres.on()

    return do


@contextlib.contextmanager
def _set(scene: Scene, name: str, value: str) -> Iterator[None]:
    """Give every session of this database another default, those that are open cut off, for the block."""
    _alter(scene, f"SET {name} = '{value}'")
    try:
        yield
    finally:
        _alter(scene, f"RESET {name}")


def _alter(scene: Scene, change: str) -> None:
    database = scene.engine.url.database
    with psycopg.connect(scene.servers.postgres.now.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} {change}")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
    scene.engine.dispose()


def _read_only(scene: Scene) -> None:
    _, gate = _about_to_settle(scene)
    with _set(scene, "default_transaction_read_only", "on"):
        gate.open()
        scene.pause(1, 5)


def _row_locked(scene: Scene) -> None:
    export_id, gate = _about_to_settle(scene)
    with scene.engine.begin() as connection:
        connection.execute(select(batch_exports).where(batch_exports.c.id == export_id).with_for_update())
        gate.open()
        scene.pause(1, 2 * LEASE)


def _deadlock(scene: Scene) -> None:
    """The application locks the run first and the row second, where Waybill does the opposite."""
    export_id, gate = _about_to_settle(scene)
    with contextlib.suppress(Exception), scene.engine.begin() as connection:
        run = runs.c.export_id == export_id
        connection.execute(update(runs).where(run).values(worker=runs.c.worker))
        gate.open()
        scene.pause(0.3, 1.5)
        row = batch_exports.c.id == export_id
        connection.execute(update(batch_exports).where(row).values(name="renamed"))


def _serialization(scene: Scene) -> None:
    with _set(scene, "default_transaction_isolation", "repeatable read"):
        export_id, gate = _about_to_settle(scene)
        with scene.engine.begin() as connection:
            row = batch_exports.c.id == export_id
            connection.execute(update(batch_exports).where(row).values(name="renamed"))
            gate.open()
            scene.pause(0.5, 2)
        scene.becomes(export_id, "COMPLETED")


def _deleted(reach: Callable[[Scene], tuple[str, Gate]]) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        export_id, gate = reach(scene)
        with scene.engine.begin() as connection:
            connection.execute(delete(batch_exports).where(batch_exports.c.id == export_id))
        scene.pause(0, 1)
        gate.open()
        scene.asked.remove(export_id)
        eventually(lambda: None not in scene.outcomes(export_id), what="its run is closed")
        eventually(
            lambda: not any(export_id in key for key in (*scene.bucket.objects(), *scene.bucket.uploads())),
            what="nothing of it is left in the store",
        )
        assert scene.mails(export_id) == []
        assert not any(each["batchExportId"] == export_id for each in scene.completions())

    return do


def _flapping(scene: Scene) -> None:
    """It comes and goes while exports are asked for and run."""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(0.7):
            scene.servers.postgres_wire.cut()

    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        ids = [scene.request(scene.random.choice((LARGE, SMALL))) for _ in range(3)]
        for each in ids:
            scene.becomes(each, "COMPLETED")
    finally:
        over.set()
        flapping.join()


CASES = (
    Case("gone in mid-export, for less than a lease", _gone((0.2, LEASE / 2), halfway)),
    Case("gone in mid-export, for longer than a lease", _gone((LEASE * 1.2, LEASE * 2), halfway)),
    Case("gone at the last update", _gone((0.5, LEASE * 2), _about_to_settle)),
    Case("silent at the last update", _silent),
    Case("cut at any byte of the last update", _cut_in_the_ending),
    Case("restarted in mid-export", _restarted(halfway)),
    Case("restarted at the last update", _restarted(_about_to_settle)),
    Case("connections cut all the time", _flapping),
    Case("read-only for a while", _read_only),
    Case("a row locked by the application", _row_locked),
    Case("deadlock", _deadlock),
    Case("serialization failure", _serialization),
    Case("the row deleted in mid-export", _deleted(halfway)),
    Case("the row deleted before the last update", _deleted(_about_to_settle)),
)

OFTEN = (
    "gone in mid-export, for longer than a lease",
    "cut at any byte of the last update",
    "restarted at the last update",
    "serialization failure",
    "the row deleted in mid-export",
)


def test_what_is_promised_holds(stage: Scene, case: Case, number: int) -> None:
    play(case, stage, number)
