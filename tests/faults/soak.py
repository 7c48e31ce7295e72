"""Runs 500 exports on three consumers and two notifiers with random faults and hostile inputs, then checks them all."""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import func, select, update

from config.tables import batch_exports, runs
from pipeline.tables import TABLES
from pipeline.types import FORMATS
from tests.faults import hostile, invariants
from tests.faults.case import SEED
from tests.faults.chaos import FAULTS, Daemons
from tests.faults.hostile import Input
from tests.faults.hostile_kinds import KINDS, LATE
from tests.faults.invariants import Expectation, Observed
from tests.faults.servers import start_servers
from tests.faults.source import LARGE, SMALL, create_source
from tests.faults.system import System, start_system
from tests.services import process

MINUTES = float(os.environ.get("SOAK_MINUTES") or 60)
EXPORTS = int(os.environ.get("SOAK_EXPORTS") or 500)
HOSTILE_SECONDS = float(os.environ.get("SOAK_HOSTILE_SECONDS") or 2)
"""Seconds between two hostile inputs."""

REJECTED: dict[str, Any] = SMALL | {"tableName": "nonsense"}
QUERIES: tuple[dict[str, Any], ...] = (
    LARGE,
    SMALL,
    LARGE | {"compression": "gzip"},
    SMALL | {"compression": "zstd"},
    *({"tableName": table, "filter": [], "orderBy": None} for table in TABLES if table != "traces"),
)
SETTLE_SECONDS = 900.0
HOSTILE_END_SECONDS = 120.0


def main() -> int:
    """Run the soak test, print its report, and return the exit status."""
    argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__).parse_args()
    print(f"FAULT_SEED={SEED} SOAK_MINUTES={MINUTES:g}: {EXPORTS} exports", flush=True)
    logs = Path(os.environ.get("SOAK_LOGS") or tempfile.mkdtemp(prefix="waybill-soak-"))
    print(f"the daemons' logs are in {logs}", flush=True)
    with (
        process.folder() as folder,
        start_servers(folder) as servers,
        create_source(servers) as rows,
        start_system(servers, rows, logs) as system,
    ):
        system.random = Random(SEED)
        daemons = Daemons(system)
        daemons.start_missing()
        daemons.wait_until_complete()
        expectations: dict[str, Expectation] = {}
        inputs: list[Input] = []
        requesting = threading.Thread(
            target=_request_exports, args=(system, expectations, Random(f"{SEED}/requesting"))
        )
        harming = threading.Thread(target=_give_inputs, args=(system, inputs, requesting, Random(f"{SEED}/harming")))
        requesting.start()
        harming.start()
        faults = _inject_faults(daemons, requesting)
        requesting.join()
        harming.join()
        daemons.start_missing()
        daemons.wait_until_complete()
        return _report(system, expectations, inputs, faults)


def _request_exports(system: System, expectations: dict[str, Expectation], random: Random) -> None:
    """Request exports evenly over the time; some with an invalid query, some cancelled a little later."""
    gap = MINUTES * 60 / EXPORTS
    for _ in range(EXPORTS):
        chance = random.random()
        query = REJECTED if chance < 0.03 else random.choice(QUERIES)
        export_id = _retry_until_available(partial(system.insert, query, random.choice(list(FORMATS))))
        statuses = {"FAILED"} if query is REJECTED else {"COMPLETED"}
        if 0.03 <= chance < 0.10:
            threading.Timer(random.uniform(0, 4), _cancel, args=(system, export_id)).start()
            statuses.add("CANCELLED")
        expectations[export_id] = Expectation(statuses=frozenset(statuses), repeats=LATE)
        if random.random() < 0.9:  # the sweeper finds the others
            threading.Thread(
                target=_publish, args=(system, export_id, random.choice((1, 1, 1, 2, 5))), daemon=True
            ).start()
        time.sleep(gap)


def _cancel(system: System, export_id: str) -> None:
    def cancel() -> None:
        with system.engine.begin() as connection:
            open_ = batch_exports.c.status.in_(["QUEUED", "PROCESSING"])
            connection.execute(
                update(batch_exports).where(batch_exports.c.id == export_id, open_).values(status="CANCELLED")
            )

    _retry_until_available(cancel)


def _publish(system: System, export_id: str, times: int) -> None:
    with suppress(AssertionError):  # Kafka is unavailable: the sweeper finds the row
        system.publish_requests(export_id, times=times)


def _retry_until_available(do: Any) -> Any:
    """Try again while the database is unavailable, as Langfuse would."""
    while True:
        try:
            return do()
        except Exception as error:  # noqa: BLE001 (drivers raise many types while the server is down)
            print(f"  waiting for the database: {type(error).__name__}", flush=True)
            time.sleep(1)


def _give_inputs(system: System, inputs: list[Input], requesting: threading.Thread, random: Random) -> None:
    """Give a hostile input every few seconds; one that a stopped server does not take is not counted."""
    while requesting.is_alive():
        given = _retry_until_available(partial(random.choice(KINDS), system, random))
        if given is not None:
            inputs.append(given)
        time.sleep(HOSTILE_SECONDS * random.uniform(0.5, 1.5))


def _inject_faults(daemons: Daemons, requesting: threading.Thread) -> Counter[str]:
    done: Counter[str] = Counter()
    while requesting.is_alive():
        name, fault = daemons.system.random.choice(list(FAULTS.items()))
        print(f"{time.strftime('%X')} {name}", flush=True)
        fault(daemons)
        daemons.system.servers.heal()
        daemons.start_missing()
        done[name] += 1
        daemons.system.pause(1, 5)
    return done


def _report(system: System, expectations: dict[str, Expectation], inputs: list[Input], faults: Counter[str]) -> int:
    regular = len(expectations)
    expectations |= {each.handle: each.expectation for each in inputs if each.expectation is not None}
    ids = list(expectations)
    found: list[str] = []
    try:
        invariants.wait_until_settled(system, ids, SETTLE_SECONDS)
    except AssertionError as error:
        found.append(str(error))
    unexplained = _wait_until_ended(system, inputs)
    observed = invariants.observe(system)
    found += [
        f"{each}: {why}" for each in ids for why in invariants.violations(system, observed, each, expectations[each])
    ]
    found += invariants.eventually_none(lambda: invariants.metric_differences(system))
    found += hostile.strangers(hostile.collect(system))
    found += [f"{each.kind} ({each.what}): {why}" for each, why in unexplained]
    print(f"\n{sum(faults.values())} faults:")
    for name, times in sorted(faults.items()):
        print(f"  {times:>5}  {name}")
    _print_inputs(inputs, unexplained)
    _print_exports(system, regular, len(ids) - regular)
    _print_emails(observed)
    print(f"{len(found)} violations")
    for each in found:
        print(f"  {each}")
    return 1 if found else 0


def _wait_until_ended(system: System, inputs: list[Input]) -> list[tuple[Input, str]]:
    """Wait until every hostile input has ended with a reason; returns those that have not, with what is wrong."""
    deadline = time.monotonic() + HOSTILE_END_SECONDS
    while (unexplained := hostile.problems(hostile.collect(system), inputs)) and time.monotonic() < deadline:
        time.sleep(5)
    return unexplained


def _print_inputs(inputs: list[Input], unexplained: list[tuple[Input, str]]) -> None:
    given: Counter[str] = Counter()
    for each in inputs:
        given[each.kind] += each.count
    failed = Counter(each.kind for each, _ in unexplained)
    print(f"{given.total()} hostile inputs, {failed.total()} of them not accounted for:")
    for kind, count in sorted(given.items()):
        print(f"  {count:>5}  {kind}: {failed[kind]} not accounted for")


def _print_exports(system: System, regular: int, hostile_exports: int) -> None:
    with system.engine.connect() as connection:
        states = Counter(connection.execute(select(batch_exports.c.status)).scalars())
        outcomes = Counter(connection.execute(select(runs.c.outcome)).scalars())
        most = connection.execute(select(func.max(runs.c.attempt))).scalar()
    print(f"{regular} exports, and {hostile_exports} with a hostile name or address")
    print(f"all rows, the hostile ones too: {dict(states)}; attempts: {dict(outcomes)}, {most} at most for one export")


def _print_emails(observed: Observed) -> None:
    sent = sum(each.total() for each in observed.emails.values())
    repeated = sent - sum(len(each) for each in observed.emails.values())
    print(f"{sent} emails, {repeated} of them repeats; {observed.unanswered.total()} counted as unanswered")


if __name__ == "__main__":
    sys.exit(main())
