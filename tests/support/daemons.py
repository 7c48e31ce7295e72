"""Waybill's daemons as their users run them: processes of the command, watched from outside."""

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
"""Seconds until an answer counts as missing; a machine that is busy with other work needs more."""


def eventually(look: Callable[[], T | None], *, seconds: float = PATIENCE, what: str = "") -> T:
    """Look again and again until the answer is true; AssertionError names the last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or look} (last: {answer!r})"
        time.sleep(0.05)


@dataclass(frozen=True)
class Daemon:
    """One running daemon: its process, what it logged, and where it serves."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far, one record a line."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP port; status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels, 0 where there are none."""
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
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


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
    """Run `waybill consumer` or `waybill notify` while the block runs, entered once it is ready (or serves).

    A `launcher` is run in place of the command, and has to serve the same.
    """
    log = _new_log(folder, name)
    settings = {"WAYBILL_HTTP_PORT": "0", "WAYBILL_HTTP_HOST": "127.0.0.1", "WAYBILL_LOG_FORMAT": "json"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*_bound(), *(launcher or command(name))],
            env={**os.environ, **settings, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        running = Daemon(process, log, eventually(lambda: _address(process, log), what=f"{name} listens"))
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
    """What binds a daemon to our life, so that a test run that is killed leaves none behind."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _new_log(folder: Path, name: str) -> Path:
    """Make a file that no other daemon logs into, though several start at once."""
    for number in itertools.count():
        log = folder / f"{name}-{number}.log"
        with contextlib.suppress(FileExistsError):
            log.touch(exist_ok=False)
            return log
    raise AssertionError("numbers do not end")


def _address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    if process.poll() is not None:
        raise AssertionError(f"ended with status {process.returncode}:\n{log.read_text()}")
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if record.get("message") == "listening":
                return f"http://{record['host']}:{record['port']}"
    return None
