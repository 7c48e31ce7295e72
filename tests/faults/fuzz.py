"""Gives random hostile inputs to a consumer and a notifier, twenty at a time.

After each twenty, both must do their work within a minute, and each input must have ended with a reason.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from urllib.parse import urlsplit
from urllib.request import urlopen

from sqlalchemy import func, select

from config.links import Links
from config.tables import outbox
from tests.faults import fuzz_kinds, hostile, hostile_kinds
from tests.faults.case import SEED
from tests.faults.chaos import LINKS
from tests.faults.hostile import Input, Kind
from tests.faults.hostile_kinds import COMPLETIONS, REQUESTS, write_record
from tests.faults.servers import start_servers
from tests.faults.source import PROJECT, create_source
from tests.faults.system import System, start_system
from tests.services import process
from tests.support.daemons import Daemon, eventually
from tests.support.kafka_raw import batch, record

MINUTES = float(os.environ.get("FUZZ_MINUTES") or 10)
ROUND = 20
MINUTE = 60.0
KINDS: tuple[Kind, ...] = (*hostile_kinds.KINDS, *fuzz_kinds.KINDS)


@dataclass
class Tally:
    """What was given and what failed: inputs by kind, and rounds after which the daemons did not do their work."""

    given: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    rounds: int = 0
    stuck: int = 0


def main() -> int:
    """Run until the time is over, print a table, and return the exit status."""
    argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__).parse_args()
    print(f"FAULT_SEED={SEED} FUZZ_MINUTES={MINUTES:g}", flush=True)
    logs = Path(os.environ.get("SOAK_LOGS") or tempfile.mkdtemp(prefix="waybill-fuzz-"))
    tally = Tally()
    with (
        process.folder() as folder,
        start_servers(folder) as servers,
        create_source(servers) as rows,
        start_system(servers, rows, logs) as system,
    ):
        daemons = system.consumer(**LINKS), system.notifier()
        deadline = time.monotonic() + MINUTES * 60
        try:
            while time.monotonic() < deadline:
                system.random = Random(f"{SEED}/{tally.rounds}")
                _check(system, daemons, _give(system, tally), tally)
                tally.rounds += 1
        finally:
            _print(tally)
    return 1 if tally.failed else 0


def _give(system: System, tally: Tally) -> list[Input]:
    inputs: list[Input] = []
    while len(inputs) < ROUND:
        if (given := system.random.choice(KINDS)(system, system.random)) is None:
            tally.refused += 1
            continue
        inputs.append(given)
        tally.given[given.kind] += given.count
    return inputs


def _check(system: System, daemons: tuple[Daemon, Daemon], inputs: list[Input], tally: Tally) -> None:
    try:
        _check_work(system, *daemons)
    except Exception:  # noqa: BLE001 (a failure of a round must not end the run)
        tally.stuck += 1
        _fail(tally, f"the daemons don't do their work after {[each.what for each in inputs]}:")
        traceback.print_exc(file=sys.stdout)
    deadline = time.monotonic() + MINUTE
    while (failed := _failures(system, inputs)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for each in failed:
        _fail(tally, each)


def _check_work(system: System, consumer: Daemon, notifier: Daemon) -> None:
    """Check an export, its link and its email, and a completion, whose events are behind the inputs of the round."""
    export_id = system.insert()
    event = json.dumps({"projectId": PROJECT, "batchExportId": export_id}).encode()
    assert write_record(system, REQUESTS, batch([record(event)])) is not None
    ended = fuzz_kinds.ended_export(system)
    assert write_record(system, COMPLETIONS, batch([record(fuzz_kinds.event_of(ended))])) is not None
    system.wait_for(export_id, "COMPLETED", seconds=MINUTE)
    for each in (export_id, ended):
        eventually(partial(system.emails, each), seconds=MINUTE, what=f"the email about {each}")
    for daemon in (consumer, notifier):
        assert daemon.get("/livez")[0] == 200, "the daemon is not live"
        eventually(daemon.ready, seconds=MINUTE, what="the daemon is ready")
    link = Links("", [LINKS["WAYBILL_SECRET_KEY"].encode()]).write(PROJECT, export_id)
    with urlopen(consumer.links + urlsplit(link).path, timeout=30) as file:
        assert file.read(), "the download is empty"


def _failures(system: System, inputs: list[Input]) -> list[str]:
    found = hostile.collect(system)
    failed = [f"{each.kind} ({each.what[:300]}): {why}" for each, why in hostile.problems(found, inputs)]
    with system.engine.connect() as connection:
        waiting = select(func.count()).where(outbox.c.published_at.is_(None))
        if count := connection.execute(waiting).scalar_one():
            failed.append(f"{count} events are not published")
    return [*failed, *hostile.strangers(found)]


def _fail(tally: Tally, text: str) -> None:
    tally.failed.append(text)
    print(f"{time.strftime('%X')} round {tally.rounds}: {text}", flush=True)


def _print(tally: Tally) -> None:
    print(f"\n{tally.given.total()} inputs in {tally.rounds} rounds; {tally.refused} more were refused by the servers")
    for kind, count in sorted(tally.given.items()):
        print(f"  {count:>6}  {kind}")
    print(f"{len(tally.failed)} failures; after {tally.stuck} rounds the daemons did not do their work")
    for each in tally.failed:
        print(f"  {each}")


if __name__ == "__main__":
    sys.exit(main())
