"""Pods of an older version and of this one run together on this version's tables, under load, and replace each other.

WAYBILL_OLD_CHECKOUT is the folder of the older version, which runs in the environment of this one.
"""

import json
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import select

from config.events import ExportFinished
from config.tables import runs
from tests.faults.case import FULL, Case, run_case
from tests.faults.source import PROJECT
from tests.faults.system import System
from tests.support.daemons import Daemon, eventually
from tests.support.exports import row_of
from tests.support.notices import completion

OLD = os.environ.get("WAYBILL_OLD_CHECKOUT", "")
pytestmark = [pytest.mark.faults, pytest.mark.skipif(not OLD, reason="WAYBILL_OLD_CHECKOUT names no older version")]
DAEMONS: tuple[Callable[[System], Daemon], ...] = ()

NAMES = ("consumer", "notify")
PAIRS = 2
"""Consumers, and as many notifiers."""

TOGETHER_SECONDS = 10 if FULL else 4
"""How long the versions run together after each replacement."""

GAP_SECONDS = 1.0
CASE_SECONDS = 2400
"""Starting six pairs of daemons takes long on a busy machine."""

LOAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"tableName": "scores", "filter": [], "orderBy": None}, "JSON"),
    ({"tableName": "scores", "filter": [], "orderBy": None}, "PARQUET"),
    ({"tableName": "dataset_items", "filter": [], "orderBy": None, "compression": "zstd"}, "JSONL"),
)
"""Exports in whose files versions do not differ. A fix of a format would look like a wrong file: versions differ in
which texts of traces they write as JSON values, which they neutralise in CSV, in the zeros of decimals in text, and in
the seconds of sessions.
"""

Version = tuple[str, ...]
"""The command before the name of a daemon."""

_OLD: Version = ("env", "-C", OLD, f"PYTHONPATH={OLD}", sys.executable, "-m", "cli.main")
_NEW: Version = (sys.executable, "-m", "cli.main")


def _start(system: System, version: Version, *names: str) -> list[Daemon]:
    """Start daemons at the same time, and wait until they are ready."""
    smtp = system.servers.smtp.running.ascii_url(system.servers.smtp_proxy.port)
    login = {"SMTP_CONNECTION_URL": smtp}
    started = [system.start(name, login, [*version, name], wait=False) for name in names]
    for each in started:
        eventually(each.ready, what=f"{each.log.name} is ready")
    return started


@contextmanager
def _load(system: System) -> Iterator[None]:
    """Request exports while the block runs: nine of ten with an event, some of those with several."""
    ending = threading.Event()
    random = Random(system.random.random())

    def request() -> None:
        while not ending.wait(GAP_SECONDS):
            export_id = system.insert(*random.choice(LOAD))
            if random.random() < 0.9:
                with suppress(AssertionError):
                    system.publish_requests(export_id, times=random.choice((1, 1, 3)))

    thread = threading.Thread(target=request)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _replace(system: System, pods: deque[Daemon], version: Version, sent: Counter[str], *, kill: bool) -> None:
    """Replace one pair after the other by pods of this version; `kill` consumers and don't ask them.

    `sent` counts the emails by old and by new notifiers that were replaced.
    """
    for _ in range(PAIRS):
        pods += _start(system, version, *NAMES)
        for name in NAMES:
            leaving = pods.popleft()
            if name == "notify":
                sent[_version(leaving)] += int(leaving.metric("waybill_notices_total", outcome="sent"))
            if kill and name == "consumer":
                leaving.process.kill()
            else:
                leaving.process.terminate()
            assert leaving.process.wait(timeout=90) in {0, -9}
        time.sleep(system.random.uniform(0.5, 1) * TOGETHER_SECONDS)


def _roll(*, kill: bool) -> Callable[[System], None]:
    """Roll from the old version to the new one, back to the old one, and to the new one again."""

    def run(system: System) -> None:
        before, sent = _outcomes(system), Counter[str]()
        pods = deque(_start(system, _OLD, *NAMES * PAIRS))
        with _load(system):
            time.sleep(TOGETHER_SECONDS)
            for version in (_NEW, _OLD, _NEW):
                _replace(system, pods, version, sent, kill=kill)
            system.wait_for(system.requested[-1], "COMPLETED", seconds=180)
        attempts = _outcomes(system) - before
        sys.stderr.write(f"\n{len(system.requested)} exports, attempts: {dict(attempts)}, emails: {dict(sent)}\n")
        assert attempts.keys() >= {"old completed", "new completed"}
        assert sent.keys() == {"old", "new"}
        assert all(sent.values())

    return run


def _outcomes(system: System) -> Counter[str]:
    """The outcomes of the attempts by old and by new consumers."""
    old = [each for each in system.daemons if _version(each) == "old"]
    with system.engine.connect() as connection:
        attempts = connection.execute(select(runs.c.worker, runs.c.outcome)).all()
    by_old = [any(f"-{each.process.pid}-" in worker for each in old) for worker, _ in attempts]
    return Counter(f"{'old' if old else 'new'} {outcome}" for old, (_, outcome) in zip(by_old, attempts, strict=True))


def _version(daemon: Daemon) -> str:
    return "old" if f"PYTHONPATH={OLD}" in str(daemon.process.args) else "new"


CASES = (
    Case("a rolling upgrade, back, and again", _roll(kill=False)),
    Case("a rolling upgrade, back, and again, with consumers that are killed", _roll(kill=True)),
)
OFTEN: tuple[str, ...] = ()


@pytest.mark.timeout(CASE_SECONDS)
def test_the_invariants_hold_while_versions_run_together(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)


def test_the_old_version_ignores_fields_that_it_does_not_know(system: System) -> None:
    _, notifier = _start(system, _OLD, *NAMES)
    export_id = system.insert()
    request = {"projectId": PROJECT, "batchExportId": export_id, "version": 2, "more": {"a": [1]}}
    system.publish(json.dumps(request).encode())
    system.wait_for(export_id, "COMPLETED")
    eventually(lambda: len(system.emails(export_id)) == 1, what="the email about the export that ran")

    ended = system.insert(status="COMPLETED", url="https://files.test/x")
    event = completion(event_id=f"event-{ended}", project_id=PROJECT, batch_export_id=ended)
    _publish_completion(system, event, version=2, more={"a": [1]})
    eventually(lambda: len(system.emails(ended)) == 1, what="the email about an event with unknown fields")
    assert row_of(system.engine, ended)["status"] == "COMPLETED"
    assert notifier.metric("waybill_notices_total", outcome="malformed") == 0
    system.restore_daemons()


def _publish_completion(system: System, event: ExportFinished, **more: Any) -> None:
    value = json.dumps(json.loads(event.model_dump_json(by_alias=True)) | more)
    producer = Producer({"bootstrap.servers": system.settings["KAFKA_BOOTSTRAP_SERVERS"]})
    producer.produce(system.settings["WAYBILL_COMPLETIONS_TOPIC"], value.encode(), key=event.batch_export_id.encode())
    assert producer.flush(30) == 0
