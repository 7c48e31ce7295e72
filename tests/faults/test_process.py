"""Daemons are killed, terminated and suspended for longer than their lease, at every checkpoint of an export."""

import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.faults.case import Case, run_case
from tests.faults.checkpoints import CHECKPOINTS, Checkpoint
from tests.faults.invariants import Expectation
from tests.faults.system import LEASE, System
from tests.support.barrier import Barrier
from tests.support.daemons import Daemon, eventually
from tests.support.exports import row_of
from tests.support.tcp_proxy import Conditions

pytestmark = pytest.mark.faults
DAEMONS = (System.sweeping_consumer, System.notifier)
CONTENT = ("ETag", "ContentLength")
"""What differs in the head of an object if its bytes differ."""

EVERYTHING = (*CONTENT, "LastModified", "Metadata")
"""What differs in the head of an object if it is written again."""


def _reach(system: System, checkpoint: Checkpoint, *later: Checkpoint) -> tuple[Daemon, Barrier, str]:
    """Start a worker, and stop its export at the checkpoint; the export is one that has the later ones, too."""
    queries = [query for query in checkpoint.queries if all(query in each.queries for each in later)]
    formats = [name for name in checkpoint.formats if all(name in each.formats for each in later)]
    worker, barrier = system.isolated_consumer(), Barrier()
    checkpoint.arm(system, barrier)
    export_id = system.request(system.random.choice(queries), system.random.choice(formats))
    barrier.wait_until_reached()
    checkpoint.go_on(system, barrier, export_id)
    return worker, barrier, export_id


def _kill(checkpoint: Checkpoint) -> Callable[[System], None]:
    def run(system: System) -> None:
        worker, barrier, _ = _reach(system, checkpoint)
        system.pause(0, 0.3)
        worker.process.kill()
        worker.process.wait()
        # A request in flight when its sender died may arrive or not.
        system.random.choice((barrier.release, barrier.drop))()

    return run


def _terminate(checkpoint: Checkpoint) -> Callable[[System], None]:
    def run(system: System) -> None:
        worker, barrier, _ = _reach(system, checkpoint)
        worker.process.send_signal(signal.SIGTERM)
        system.pause(0, 2)  # it drains for one second
        barrier.release()
        assert worker.process.wait(timeout=90) == 0

    return run


def _stop(checkpoint: Checkpoint) -> Callable[[System], None]:
    def run(system: System) -> None:
        worker, barrier, export_id = _reach(system, checkpoint)
        worker.process.send_signal(signal.SIGSTOP)
        system.wait_for(export_id, "COMPLETED")
        system.servers.kafka_proxy.heal()
        system.pause(0, 1)
        before = _written(system, export_id)
        _resume(worker, barrier)
        assert _written(system, export_id) == before

    return run


def _two_suspended_workers(system: System) -> None:
    first_checkpoint, second_checkpoint = (system.random.choice(CHECKPOINTS[:-1]) for _ in range(2))
    first, first_barrier, export_id = _reach(system, first_checkpoint, second_checkpoint)
    first.process.send_signal(signal.SIGSTOP)
    # Equal files have the same ETag. Over an earlier file, the condition of the second worker's request on its way also
    # holds for the equal file of the third.
    kept = CONTENT if _find_objects(system, export_id) else EVERYTHING
    second_barrier = Barrier()
    second_checkpoint.arm(system, second_barrier)
    second_barrier.wait_until_reached()
    # The sweeping consumer has it now: it is suspended too, and a third worker completes the export.
    (second,) = [each for each in system.alive("consumer") if each is not first]
    second.process.send_signal(signal.SIGSTOP)
    system.sweeping_consumer()
    system.wait_for(export_id, "COMPLETED")
    before = _written(system, export_id, kept)
    suspended = [(first, first_barrier), (second, second_barrier)]
    system.random.shuffle(suspended)
    for each, barrier in suspended:
        _resume(each, barrier)
        assert _written(system, export_id, kept) == before


def _resume(worker: Daemon, barrier: Barrier) -> None:
    worker.process.send_signal(signal.SIGCONT)
    barrier.release()
    eventually(lambda: worker.metric("waybill_exports_running") == 0, what="the suspended worker gives up")


def _find_objects(system: System, export_id: str) -> list[str]:
    return [key for key in system.bucket.objects() if export_id in key]


def _written(system: System, export_id: str, kept: Sequence[str] = EVERYTHING) -> list[Any]:
    """The row, and what is kept of the heads of its objects."""
    names = _find_objects(system, export_id)
    heads = [system.bucket.client.head_object(Bucket=system.bucket.name, Key=key) for key in names]
    return [row_of(system.engine, export_id), *({name: head[name] for name in kept} for head in heads)]


def _notifier_dies_before(system: System) -> None:
    notifier, _ = _stop_while_sending(system)
    system.pause(0, 1)
    notifier.process.kill()
    notifier.process.wait()
    system.servers.smtp_proxy.cut()
    system.servers.smtp_proxy.heal()
    system.notifier()


def _notifier_dies_after(system: System) -> None:
    notifier, export_id = _stop_while_sending(system)
    system.servers.smtp_proxy.apply(Conditions(delay=1.5))  # the server's reply is late
    eventually(lambda: system.emails(export_id), what="the email is accepted")
    notifier.process.kill()
    notifier.process.wait()
    system.servers.heal()
    system.notifier()


def _notifier_ends_before_the_response(system: System) -> None:
    notifier, export_id = _stop_while_sending(system)
    system.servers.smtp_proxy.apply(Conditions(delay=3))
    eventually(lambda: system.emails(export_id), what="the email is accepted")
    system.servers.smtp_proxy.apply(Conditions(silent=True))
    notifier.process.send_signal(signal.SIGTERM)
    assert notifier.process.wait(timeout=90) == 0
    system.servers.heal()
    system.notifier()


def _notifier_ends(system: System) -> None:
    notifier, _ = _stop_while_sending(system)
    notifier.process.send_signal(signal.SIGTERM)
    system.pause(0, 2)
    system.servers.smtp_proxy.heal()
    assert notifier.process.wait(timeout=90) == 0
    system.notifier()


def _notifier_sleeps(system: System) -> None:
    notifier, export_id = _stop_while_sending(system)
    notifier.process.send_signal(signal.SIGSTOP)
    system.servers.smtp_proxy.cut()
    system.servers.smtp_proxy.heal()
    system.notifier()
    eventually(lambda: system.emails(export_id), what="the other notifier sends it")
    notifier.process.send_signal(signal.SIGCONT)
    system.pause(LEASE / 2, LEASE)


def _stop_while_sending(system: System) -> tuple[Daemon, str]:
    """Stop an email between a notifier and the server; returns the notifier and the id of the export."""
    alive = system.alive("notify")
    notifier = alive[0] if alive else system.notifier()
    system.servers.smtp_proxy.apply(Conditions(silent=True))
    export_id = system.request()
    eventually(lambda: (system.notice(export_id) or {}).get("state") == "sending", what="an email is being sent")
    return notifier, export_id


CASES = (
    *(Case(f"kill -9 {checkpoint.name}", _kill(checkpoint)) for checkpoint in CHECKPOINTS),
    *(Case(f"SIGTERM {checkpoint.name}", _terminate(checkpoint)) for checkpoint in CHECKPOINTS),
    *(
        Case(f"SIGSTOP for longer than the lease {checkpoint.name}, then SIGCONT", _stop(checkpoint))
        for checkpoint in CHECKPOINTS
    ),
    Case("two suspended workers that resume", _two_suspended_workers),
    Case("the notifier killed before the email was accepted", _notifier_dies_before),
    Case("the notifier killed after the email was accepted", _notifier_dies_after, Expectation(repeats=2)),
    Case("SIGTERM to the notifier while it sends an email", _notifier_ends),
    Case("SIGTERM to the notifier before a late response", _notifier_ends_before_the_response, Expectation(repeats=2)),
    Case("the notifier suspended for longer than its lease", _notifier_sleeps),
)

OFTEN = (
    "kill -9 while reading",
    "kill -9 while uploading a part",
    "kill -9 after completing the upload",
    "kill -9 after the row update and before the event",
    "SIGTERM while uploading a part",
    "SIGSTOP for longer than the lease before completing the upload, then SIGCONT",
    "two suspended workers that resume",
    "the notifier killed before the email was accepted",
)


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
