"""Measures what viewers of the operators' page cost a consumer, and whether exports are slower meanwhile.

`python -m tests.bench.viewers --viewers 50 --exports 10000 --seconds 60`: each viewer asks as often as the page does.
"""

import argparse
import contextlib
import http.client
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from sqlalchemy import insert

from config.tables import batch_exports, runs
from tests.bench.installation import PROJECT, QUERY, Installation, start_installation
from tests.support.daemons import Daemon, daemon

INTERVAL = 2.0
"""Seconds between two requests of a page."""

QUEUED = 10
"""Every tenth export is QUEUED, and all others have ended."""

GOAL = 0.02
WARM_SECONDS = 15


def main() -> None:
    """Measure with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.viewers", description=__doc__)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--exports", type=int, default=10_000, help="rows in the table")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--run", type=int, default=300, help="small exports, with viewers and without; 0 for none")
    options = parser.parse_args()
    console = Console(width=max(Console().width, 100), soft_wrap=True, highlight=False)
    with start_installation(rows=100) as installation:
        console.print(f"{installation.kind} services, {options.exports:,} exports, {options.viewers} viewers")
        if options.run:
            _compare(installation, options.run, options.viewers, console)
        _fill(installation, options.exports)
        off = installation.environment | {"LANGFUSE_S3_BATCH_EXPORT_ENABLED": "false"}
        with daemon("consumer", installation.folder, off) as consumer:
            _measure(consumer, options.viewers, options.seconds, console)


def _measure(consumer: Daemon, viewers: int, seconds: float, console: Console) -> None:
    """Print the CPU of the consumer and of the database, without viewers and with them."""
    time.sleep(WARM_SECONDS)
    idle, _ = _cpu(consumer, seconds)
    with _looking(consumer, viewers) as answers:
        time.sleep(WARM_SECONDS)
        before = len(answers)
        busy, database = _cpu(consumer, seconds)
        asked = len(answers) - before
    longest = max(answers, default=0.0)
    console.print(f"consumer: {idle:.2%} of a core idle, {busy:.2%} with viewers, {asked / seconds:.1f} requests/s")
    console.print(f"database with viewers: {database:.2%} of a core; the slowest of all answers took {longest:.2f} s")
    console.print(f"viewers cost {busy - idle:.2%}; under {GOAL:.0%}: {'yes' if busy - idle < GOAL else 'NO'}")


def _compare(installation: Installation, count: int, viewers: int, console: Console) -> None:
    """Print how long the same exports take, in turns without viewers and with them."""
    with daemon("consumer", installation.folder, installation.environment) as consumer:
        taken: dict[int, list[float]] = {0: [], viewers: []}
        first = 0
        for lookers in (0, viewers) * 3:
            with _looking(consumer, lookers):
                began = time.monotonic()
                installation.request(first, count)
                first += count
                installation.wait(first)
                taken[lookers].append(time.monotonic() - began)
    for lookers, times in taken.items():
        console.print(f"{count} small exports with {lookers} viewers: {', '.join(f'{each:.1f}' for each in times)} s")


@contextlib.contextmanager
def _looking(consumer: Daemon, viewers: int) -> Iterator[list[float]]:
    """Let viewers look while the block runs; gives the seconds that each answer took."""
    stop, answers = threading.Event(), list[float]()

    def look(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(consumer.url).netloc, timeout=30)
        with contextlib.closing(connection):
            stop.wait(INTERVAL * number / viewers)
            while not stop.is_set():
                began = time.monotonic()
                connection.request("GET", "/api/v1/overview")
                connection.getresponse().read()
                answers.append(time.monotonic() - began)
                stop.wait(INTERVAL)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(viewers)]
    for each in threads:
        each.start()
    try:
        yield answers
    finally:
        stop.set()
        for each in threads:
            each.join()


def _cpu(consumer: Daemon, seconds: float) -> tuple[float, float]:
    """Return the shares of a core that the consumer and PostgreSQL use."""
    servers = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "postgres"]
    servers = [each for each in servers if _descends(each)]

    def read() -> tuple[float, float]:
        return _used(psutil.Process(consumer.process.pid)), sum(map(_used, servers))

    began, (first, first_database) = time.monotonic(), read()
    time.sleep(seconds)
    (last, last_database), taken = read(), time.monotonic() - began
    return (last - first) / taken, (last_database - first_database) / taken


def _descends(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return os.getpid() in [each.pid for each in process.parents()]
    return False


def _used(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _fill(installation: Installation, count: int) -> None:
    """Insert exports of the last days; most have ended with a run."""
    now = datetime.now(UTC)
    ids = {f"viewed-{number:06}": now - timedelta(seconds=30 * number) for number in range(count)}
    common = {"project_id": PROJECT, "user_id": "user-1", "name": "All traces of the last week", "query": QUERY}
    rows = [
        common | {"id": each, "created_at": at, "updated_at": at, "format": "CSV"} | _ending(number, at)
        for number, (each, at) in enumerate(ids.items())
    ]
    ended = [row for row in rows if row["status"] != "QUEUED"]
    attempts = [
        {"export_id": row["id"], "attempt": 1, "project_id": PROJECT, "worker": "waybill-consumer-7c9d8f6b5-x2k0q"}
        | {"claimed_at": row["created_at"], "heartbeat_at": row["created_at"], "lease_until": row["created_at"]}
        | {"finished_at": row["finished_at"], "outcome": str(row["status"]).lower(), "rows": 1000, "bytes": 100_000}
        for row in ended
    ]
    with installation.engine.begin() as connection:
        connection.execute(insert(batch_exports), rows)
        connection.execute(insert(runs), attempts)


def _ending(number: int, at: datetime) -> dict[str, object]:
    if number % QUEUED == 0:
        return {"status": "QUEUED", "finished_at": None}
    return {"status": "FAILED" if number % QUEUED == 1 else "COMPLETED", "finished_at": at + timedelta(seconds=9)}


if __name__ == "__main__":
    main()
