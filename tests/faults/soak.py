"""Three consumers and two notifiers, five hundred exports, a random fault every few seconds: then all must be right."""

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
from tests.faults import invariants
from tests.faults.case import SEED
from tests.faults.chaos import FAULTS, Crew
from tests.faults.invariants import Promise
from tests.faults.servers import serving
from tests.faults.source import LARGE, SMALL, source
from tests.faults.system import Scene, scene
from tests.services import process

MINUTES = float(os.environ.get("SOAK_MINUTES") or 60)
EXPORTS = int(os.environ.get("SOAK_EXPORTS") or 500)
FORMATS = ("CSV", "JSON", "JSONL", "PARQUET")
REJECTED: dict[str, Any] = SMALL | {"tableName": "nonsense"}
QUERIES: tuple[dict[str, Any], ...] = (
    LARGE,
    SMALL,
    LARGE | {"compression": "gzip"},
    SMALL | {"compression": "zstd"},
    *({"tableName": table, "filter": [], "orderBy": None} for table in TABLES if table != "traces"),
)
SETTLE_SECONDS = 900.0


def main() -> int:
    """Run the soak, print what came of it, and return the exit status."""
    print(f"FAULT_SEED={SEED} SOAK_MINUTES={MINUTES:g}: {EXPORTS} exports", flush=True)
    logs = Path(os.environ.get("SOAK_LOGS") or tempfile.mkdtemp(prefix="waybill-soak-"))
    print(f"the daemons log into {logs}", flush=True)
    with (
        process.folder() as folder,
        serving(folder) as servers,
        source(servers) as rows,
        scene(servers, rows, logs) as made,
    ):
        made.random = Random(SEED)
        crew = Crew(made)
        crew.muster()
        crew.complete()
        promises: dict[str, Promise] = {}
        asking = threading.Thread(target=_ask, args=(made, promises, Random(f"{SEED}/asking")))
        asking.start()
        faults = _make_mischief(crew, asking)
        asking.join()
        crew.muster()
        crew.complete()
        return _report(made, promises, faults)


def _ask(made: Scene, promises: dict[str, Promise], random: Random) -> None:
    """Ask for exports evenly over the time; some nonsense, some cancelled a little later."""
    gap = MINUTES * 60 / EXPORTS
    for _ in range(EXPORTS):
        chance = random.random()
        query = REJECTED if chance < 0.03 else random.choice(QUERIES)
        export_id = _insist(partial(made.ask, query, random.choice(FORMATS)))
        statuses = {"FAILED"} if query is REJECTED else {"COMPLETED"}
        if 0.03 <= chance < 0.10:
            threading.Timer(random.uniform(0, 4), _cancel, args=(made, export_id)).start()
            statuses.add("CANCELLED")
        promises[export_id] = Promise(statuses=frozenset(statuses), repeats=2)
        if random.random() < 0.9:  # the rest is found without an event
            threading.Thread(target=_ring, args=(made, export_id, random.choice((1, 1, 1, 2, 5))), daemon=True).start()
        time.sleep(gap)


def _cancel(made: Scene, export_id: str) -> None:
    def cancel() -> None:
        with made.engine.begin() as connection:
            open_ = batch_exports.c.status.in_(["QUEUED", "PROCESSING"])
            connection.execute(
                update(batch_exports).where(batch_exports.c.id == export_id, open_).values(status="CANCELLED")
            )

    _insist(cancel)


def _ring(made: Scene, export_id: str, times: int) -> None:
    with suppress(AssertionError):  # Kafka is away: the row will be found
        made.ring(export_id, times=times)


def _insist(do: Any) -> Any:
    """Do it again while the database is away: the application would."""
    while True:
        try:
            return do()
        except Exception as error:  # noqa: BLE001 (whatever the driver says while the server is down)
            print(f"  the application waits: {type(error).__name__}", flush=True)
            time.sleep(1)


def _make_mischief(crew: Crew, asking: threading.Thread) -> Counter[str]:
    done: Counter[str] = Counter()
    while asking.is_alive():
        name, fault = crew.scene.random.choice(list(FAULTS.items()))
        print(f"{time.strftime('%X')} {name}", flush=True)
        fault(crew)
        crew.scene.servers.heal()
        crew.muster()
        done[name] += 1
        crew.scene.pause(1, 5)
    return done


def _report(made: Scene, promises: dict[str, Promise], faults: Counter[str]) -> int:
    ids = list(promises)
    problems: list[str] = []
    try:
        invariants.settled(made, ids, SETTLE_SECONDS)
    except AssertionError as error:
        problems.append(str(error))
    time.sleep(5)
    seen = invariants.look(made)
    problems += [f"{each}: {why}" for each in ids for why in invariants.broken(made, seen, each, promises[each])]
    problems += invariants.eventually_none(lambda: invariants.uncounted(made))
    doubled = sum(count - 1 for each in ids for count in seen.mails[each].values())
    with made.engine.connect() as connection:
        states = Counter(connection.execute(select(batch_exports.c.status)).scalars())
        outcomes = Counter(connection.execute(select(runs.c.outcome)).scalars())
        most = connection.execute(select(func.max(runs.c.attempt))).scalar()
    print(f"\n{sum(faults.values())} faults:")
    for name, times in sorted(faults.items()):
        print(f"  {times:>4}  {name}")
    print(f"{len(ids)} exports: {dict(states)}; attempts: {dict(outcomes)}, {most} at most for one export")
    print(f"{sum(sum(each.values()) for each in seen.mails.values())} mails, {doubled} of them repeats")
    print(f"{len(problems)} broken promises")
    for each in problems:
        print(f"  {each}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
