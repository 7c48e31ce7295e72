"""Runs Waybill's daemons and commands as processes, and reads their logs and metrics."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = float(os.environ.get("WAYBILL_TEST_PATIENCE") or 60)
"""Seconds until a wait fails; a busy machine needs more."""


def eventually(look: Callable[[], T | None], *, seconds: float = PATIENCE, what: str = "") -> T:
    """Call `look` until its result is true, and return it; AssertionError with the last result after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or look} (last: {answer!r})"
        time.sleep(0.05)


@dataclass(frozen=True)
class Daemon:
    """A running daemon: its process, its log, and the URL of its internal HTTP port."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    @property
    def links(self) -> str:
        """The URL of the consumer's port for links."""
        found = _address(self.process, self.log, "links")
        assert found is not None, "the consumer serves no links"
        return found

    @property
    def worker(self) -> str:
        """A part of the names of its workers that no other daemon has: its container's name, or its process."""
        hosts = (str(each).removeprefix("--hostname=") for each in self._command() if "--hostname=" in str(each))
        return next(hosts, f"-{self.process.pid}-")

    def _command(self) -> Sequence[object]:
        arguments = self.process.args
        return arguments if isinstance(arguments, Sequence) else (arguments,)

    def lines(self) -> list[dict[str, Any]]:
        """The log records so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Send a request to its internal port; returns status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        """Whether it reports that it is ready."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels, 0 if there are none."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{label}"' in head for key, label in labels.items()):
                total += float(value)
        return total


def waybill(*arguments: str, environment: Mapping[str, str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one command of Waybill to its end."""
    return subprocess.run(
        command(*arguments),
        env={**_inherited(), **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _inherited() -> dict[str, str]:
    """The environment without the settings of the tests, which a daemon would report as unknown."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_TEST_")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


@contextlib.contextmanager
def daemon(
    name: str,
    folder: Path,
    environment: Mapping[str, str],
    *,
    wait: bool = True,
    launcher: Sequence[str] | None = None,
) -> Iterator[Daemon]:
    """Run `waybill consumer` or `waybill notify` while the block runs, which begins once it is ready (or serves).

    A `launcher` replaces the command, and must serve the same.
    """
    log = _new_log(folder, name)
    settings = {"WAYBILL_HTTP_PORT": "0", "WAYBILL_INTERNAL_PORT": "0", "WAYBILL_HTTP_HOST": "127.0.0.1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*_bound(), *(launcher or command(name))],
            env={**_inherited(), **settings, "WAYBILL_LOG_FORMAT": "json", **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        running = Daemon(process, log, eventually(lambda: _address(process, log, "internal"), what=f"{name} listens"))
        if wait:
            eventually(running.ready, what=f"{name} is ready, see {log}")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _bound() -> list[str]:
    """The command prefix that kills a daemon with its test run."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _new_log(folder: Path, name: str) -> Path:
    """Create a log file of its own for each daemon, also when several start at the same time."""
    for number in itertools.count():
        log = folder / f"{name}-{number}.log"
        with contextlib.suppress(FileExistsError):
            log.touch(exist_ok=False)
            return log
    raise AssertionError("numbers do not end")


def _address(process: subprocess.Popen[bytes], log: Path, port: str) -> str | None:
    if process.poll() is not None:
        raise AssertionError(f"ended with status {process.returncode}:\n{log.read_text()}")
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if record.get("message") == "listening" and record.get("serves", port) == port:
                return f"http://{record['host']}:{record['port']}"
    return None
