"""Measures long-running daemons: an idle hour, then ten thousand small exports.

`python -m tests.bench.steady --idle 60 --exports 10000`: one consumer and one notifier; their health and their metrics
are requested as often as the chart and its monitors do.
"""

import argparse
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from sqlalchemy import func, select

from config.tables import notices
from tests.bench.installation import USER, Installation, start_installation
from tests.support.daemons import Daemon, daemon, eventually

REQUESTS = {"/livez": 20, "/readyz": 15, "/metrics": 30}
"""Seconds between two requests of each kind."""

WARM_SECONDS = 60
CALM_SECONDS = 20
SAMPLES = 6
PATIENCE = 1800.0
SHARE = 0.01
"""The goal for the CPU of an idle pod, in cores."""

Pods = Mapping[str, Daemon]


@dataclass(frozen=True)
class Sample:
    """The state of a process: CPU seconds since its start, and resident memory in bytes."""

    at: float
    cpu_seconds: float
    memory: int
    threads: int
    files: int
    sockets: int

    def text(self) -> str:
        """Format the columns that HEADER names."""
        return f"{self.memory / 2**20:>8.1f}{self.threads:>9}{self.files:>7}{self.sockets:>9}{self.cpu_seconds:>9.1f}"


HEADER = f"{'pod':<10}{'after':>14}{'MiB':>8}{'threads':>9}{'files':>7}{'sockets':>9}{'CPU s':>9}"


def main() -> None:
    """Measure with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steady", description=__doc__)
    parser.add_argument("--idle", type=float, default=60, help="minutes; 0 for none")
    parser.add_argument("--exports", type=int, default=10_000, help="0 for none")
    parser.add_argument("--at-once", type=int, default=1000, help="exports between two samples")
    parser.add_argument("--rows", type=int, default=100, help="rows of each export")
    parser.add_argument("--slots", type=int, default=8, help="of the consumer that exports")
    options = parser.parse_args()
    console = Console(width=max(Console().width, 100), soft_wrap=True)
    with start_installation(options.rows) as installation:
        if options.idle:
            with _pods(installation, {}) as pods:
                _idle(pods, options.idle * 60, console)
        if options.exports:
            with _pods(installation, {"WAYBILL_SLOTS": str(options.slots)}) as pods:
                _export(pods, installation, options.exports, options.at_once, console)


@contextmanager
def _pods(installation: Installation, changes: Mapping[str, str]) -> Iterator[Pods]:
    environment = {**installation.environment, **changes}
    with ExitStack() as running:
        yield {
            name: running.enter_context(daemon(name, installation.folder, environment))
            for name in ("consumer", "notify")
        }


def _idle(pods: Pods, seconds: float, console: Console) -> None:
    """Measure idle daemons, and print the samples."""
    console.print(f"idle for {seconds / 60:g} minutes\n{HEADER}")
    _let_pass(pods, WARM_SECONDS)
    first = last = {name: _sample(pod) for name, pod in pods.items()}
    _print(first, "0 min", console)
    for number in range(1, SAMPLES + 1):
        _let_pass(pods, seconds / SAMPLES)
        last = {name: _sample(pod) for name, pod in pods.items()}
        _print(last, f"{number * seconds / SAMPLES / 60:.0f} min", console)
    for name, begin in first.items():
        end = last[name]
        share = (end.cpu_seconds - begin.cpu_seconds) / (end.at - begin.at)
        console.print(f"{name}: {share:.2%} of a core; under {SHARE:.0%}: {'yes' if share < SHARE else 'NO'}")


def _export(pods: Pods, installation: Installation, exports: int, at_once: int, console: Console) -> None:
    """Run exports in rounds, and print a sample after the emails of each round are sent."""
    console.print(
        f"{exports:,} small exports, {at_once:,} at a time, each with an email, {installation.kind} services\n{HEADER}"
    )
    _print({name: _sample(pod) for name, pod in pods.items()}, "none", console)
    began = time.monotonic()
    for first in range(0, exports, at_once):
        done = min(first + at_once, exports)
        installation.request(first, done - first, USER)
        installation.wait(done)
        eventually(_emails_sent(installation, done), seconds=PATIENCE, what=f"{done} emails")
        _let_pass(pods, CALM_SECONDS)
        _print({name: _sample(pod) for name, pod in pods.items()}, f"{done:,}", console)
    console.print(f"{exports / (time.monotonic() - began):.1f} exports/s, with the pauses in between")


def _emails_sent(installation: Installation, count: int) -> Callable[[], bool]:
    sent = select(func.count()).where(notices.c.sent_at.is_not(None))

    def look() -> bool:
        time.sleep(0.5)
        with installation.engine.connect() as connection:
            return bool(connection.scalar(sent) == count)

    return look


def _let_pass(pods: Pods, seconds: float) -> None:
    """Wait, sending the requests of an orchestrator and a monitor."""
    began = time.monotonic()
    due = dict.fromkeys(REQUESTS, began)
    while (now := time.monotonic()) < began + seconds:
        for path in [path for path, at in due.items() if at <= now]:
            due[path] += REQUESTS[path]
            for pod in pods.values():
                pod.get(path)
        time.sleep(max(0.0, min(*due.values(), began + seconds) - time.monotonic()))


def _print(samples: Mapping[str, Sample], after: str, console: Console) -> None:
    for name, sample in samples.items():
        console.print(f"{name:<10}{after:>14}{sample.text()}", highlight=False)


def _sample(pod: Daemon) -> Sample:
    folder = Path(f"/proc/{pod.process.pid}")
    status = dict(re.findall(r"(\w+):\s+(\d+)", (folder / "status").read_text()))
    # The name of the command is in brackets, and may contain any character.
    times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    opened = [_target(each) for each in (folder / "fd").iterdir()]
    return Sample(
        at=time.monotonic(),
        cpu_seconds=sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        memory=int(status["VmRSS"]) << 10,
        threads=int(status["Threads"]),
        files=len(opened),
        sockets=sum(each.startswith("socket:") for each in opened),
    )


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""  # closed since


if __name__ == "__main__":
    main()
