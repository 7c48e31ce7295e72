"""Records that can't be decoded and rows that can't be loaded: each ends with a reason, and holds up no other."""

import json
import sys
from collections.abc import Sequence

import pytest

from config.settings import load
from config.tables import batch_exports
from runtime.dead_letters import DeadLetter, read_all
from tests.faults import hostile, invariants
from tests.faults.case import FULL, Case, run_case
from tests.faults.hostile_kinds import HARMLESS, ROWS, insert_hidden, insert_row, ring
from tests.faults.source import PROJECT
from tests.faults.system import System
from tests.support.daemons import eventually
from tests.support.extremes import write
from tests.support.kafka_raw import BAD_NAME, CODECS, GZIP, Produced, batch, mutate_batch, produce, record

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

INPUTS = 300 if FULL else 60
MINUTE = 60.0
HUGE = 256 << 20
BAD = [(BAD_NAME, b"x")]


def _event(export_id: str) -> bytes:
    return json.dumps({"projectId": PROJECT, "batchExportId": export_id}).encode()


def _write(system: System, data: bytes, setting: str = "WAYBILL_REQUESTS_TOPIC") -> Produced:
    """Write batches to the first partition of a topic, not through the proxy."""
    return produce(system.servers.kafka.running.bootstrap, system.settings[setting], 0, data)


def _write_accepted(system: System, data: bytes, setting: str = "WAYBILL_REQUESTS_TOPIC") -> int:
    written = _write(system, data, setting)
    assert written.error == 0, f"the broker rejected the batch with error {written.error}"
    return written.offset


def _dead_letters(system: System, setting: str = "WAYBILL_REQUESTS_TOPIC") -> dict[int, DeadLetter]:
    """Return the unreadable dead letters of the first partition of a topic, by their last offset."""
    settings = load(system.settings)
    found = [each for each in read_all(settings) if each.why["topic"] == system.settings[setting]]
    return {
        int(each.why["last-offset"]): each
        for each in found
        if each.why["error-class"] == "unreadable" and each.why["partition"] == "0"
    }


def _wait_for_dead_letters(system: System, offsets: Sequence[int], setting: str = "WAYBILL_REQUESTS_TOPIC") -> None:
    eventually(
        lambda: set(offsets) <= _dead_letters(system, setting).keys(),
        seconds=MINUTE,
        what=f"dead letters of the offsets {offsets}",
    )


def _wait_for_all(system: System, export_ids: Sequence[str]) -> None:
    for each in export_ids:
        system.wait_for(each, "COMPLETED", seconds=MINUTE)


def _among_requests(system: System) -> None:
    """Each batch has a good request before and after the record that can't be decoded."""
    ids, offsets = [], []
    codecs = [0, *CODECS]
    system.random.shuffle(codecs)
    for codec in codecs:
        ids += (two := [system.insert(), system.insert()])
        records = [record(_event(two[0])), record(b"bad", 1, headers=BAD), record(_event(two[1]), 2)]
        offsets.append(_write_accepted(system, batch(records, codec=codec)) + 1)
    _wait_for_all(system, ids)
    _wait_for_dead_letters(system, offsets)


def _among_completions(system: System) -> None:
    offsets = [
        _write_accepted(system, batch([record(b"bad", headers=BAD)], codec=each), "WAYBILL_COMPLETIONS_TOPIC")
        for each in (0, *CODECS)
    ]
    _wait_for_dead_letters(system, offsets, "WAYBILL_COMPLETIONS_TOPIC")
    export_id = system.request()
    system.wait_for(export_id, "COMPLETED")
    eventually(lambda: system.emails(export_id), seconds=MINUTE, what="the email is sent")


def _on_a_damaged_disk(system: System) -> None:
    """The broker delivers a batch whose bytes have changed since it was written."""
    (daemon,) = system.alive("consumer")
    daemon.process.terminate()
    assert daemon.process.wait(timeout=90) == 0
    mark = b"%032x" % system.random.getrandbits(128)
    first = system.insert()
    _write_accepted(system, batch([record(_event(first))]))
    offset = _write_accepted(system, batch([record(mark), record(mark, 1)]))
    last = system.insert()
    _write_accepted(system, batch([record(_event(last))]))
    folder = system.servers.kafka.running.data / f"{system.settings['WAYBILL_REQUESTS_TOPIC']}-0"
    (log,) = [path for path in sorted(folder.glob("*.log")) if mark in path.read_bytes()]
    with log.open("r+b") as stream:
        stream.seek(log.read_bytes().index(mark))
        stream.write(b"\0")
    system.restore_daemons()
    _wait_for_all(system, [first, last])
    _wait_for_dead_letters(system, [offset + 1])
    found = _dead_letters(system)[offset + 1]
    assert (found.why["offset"], found.why["content"]) == (str(offset), "batch")


def _larger_than_a_fetch(system: System) -> None:
    """A message above the limit of a fetch is delivered nevertheless, and is no request."""
    first, last = system.insert(), system.insert()
    _write_accepted(system, batch([record(_event(first))]))
    _write_accepted(system, batch([record(b"x" * (3 << 20))]))
    _write_accepted(system, batch([record(_event(last))]))
    _wait_for_all(system, [first, last])


def _decompresses_to_too_much(system: System) -> None:
    """A small batch fills the memory of whoever decompresses all of it."""
    first, last = system.insert(), system.insert()
    _write_accepted(system, batch([record(_event(first))]))
    offset = _write_accepted(system, batch([record(bytes(HUGE))], codec=GZIP))
    _write_accepted(system, batch([record(_event(last))]))
    _wait_for_all(system, [first, last])
    _wait_for_dead_letters(system, [offset])


def _fuzz(system: System) -> None:
    """After each batch that the broker accepts, a request in the same partition is handled within a minute."""
    accepted = rejected = 0
    waiting = []
    while accepted < INPUTS:
        if _write(system, mutate_batch(system.random)).error != 0:
            rejected += 1
            continue
        accepted += 1
        waiting.append(system.insert())
        _write_accepted(system, batch([record(_event(waiting[-1]))]))
        if len(waiting) == 10:
            _wait_for_all(system, waiting)
            waiting.clear()
    _wait_for_all(system, waiting)
    (daemon,) = system.alive("consumer")
    assert not [line for line in daemon.lines() if "the Kafka consumer stopped" in line.get("message", "")]
    sys.stderr.write(f"\n{accepted} batches accepted, {rejected} rejected, {len(_dead_letters(system))} dead letters\n")


def _rows(system: System) -> None:
    """Good exports, with and without an event, wait among rows with values that can't be loaded."""
    given = [
        insert_row(system, column, value, with_event=with_event)
        for column, values in (ROWS | HARMLESS | {"id": ("x" * 513,)}).items()
        for value in values
        for with_event in ((False,) if column == "id" else (False, True))
    ]
    good = [system.insert(), system.request()]
    _wait_for_all(system, good)
    unended = invariants.eventually_none(
        lambda: [f"{each.what}: {why}" for each, why in hostile.problems(hostile.collect(system), given)], MINUTE
    )
    assert unended == []


def _status_that_nobody_knows(system: System) -> None:
    """A row with a status outside Langfuse's is none of Waybill's: it stays, and its request is refused."""
    (daemon,) = system.alive("consumer")
    handle = insert_hidden(system)
    before = daemon.metric("waybill_requests_total", verdict="finished")
    assert write(system.engine, batch_exports.c.status, "PAUSED", user_id=handle)
    ring(system, handle)
    _wait_for_all(system, [system.insert(), system.request()])
    eventually(
        lambda: daemon.metric("waybill_requests_total", verdict="finished") > before,
        seconds=MINUTE,
        what="the request is refused",
    )
    assert system.status(handle) == "PAUSED"


CASES = (
    Case("a record that can't be decoded among requests, in every codec", _among_requests),
    Case("a record that can't be decoded among completions", _among_completions),
    Case("a batch damaged on the broker's disk", _on_a_damaged_disk),
    Case("a message larger than a fetch", _larger_than_a_fetch),
    Case("a batch that decompresses to 256 MiB", _decompresses_to_too_much),
    Case("rows that can't be loaded", _rows),
    Case("a row with an unknown status", _status_that_nobody_knows),
    Case("mutated batches", _fuzz, scaled="" if FULL else f"{INPUTS} batches"),
)

OFTEN = (
    "a record that can't be decoded among requests, in every codec",
    "a batch damaged on the broker's disk",
    "rows that can't be loaded",
)


def test_the_invariants_hold_after_the_poison(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
