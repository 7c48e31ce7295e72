"""Starts the parts of the embedded stack in one folder, and stops them."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

READY_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Stack:
    """The addresses of the parts, all on this machine."""

    folder: Path
    kafka: str
    clickhouse: str
    smtp: str

    @property
    def database(self) -> Path:
        """The SQLite file; the first connection creates it."""
        return self.folder / "waybill.sqlite"

    @property
    def exports(self) -> Path:
        """The folder that stands in for the bucket."""
        return self.folder / "exports"

    @property
    def emails(self) -> Path:
        """The folder of the mail sink's `.eml` files."""
        return self.folder / "emails"

    def environment(self) -> dict[str, str]:
        """Return the settings that point Waybill at this stack."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "CLICKHOUSE_URL": self.clickhouse,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "WAYBILL_STORAGE_URL": self.exports.as_uri(),
            "SMTP_CONNECTION_URL": self.smtp,
            "EMAIL_FROM_ADDRESS": "exports@waybill.example",
            "LANGFUSE_S3_BATCH_EXPORT_ENABLED": "true",
        }


@contextmanager
def run_stack(folder: Path) -> Iterator[Stack]:
    """Run broker, ClickHouse and mail sink while the block runs; their data stays in the folder.

    If this process is killed, they stop by themselves. Raises RuntimeError when a part does not become ready.
    """
    folder = folder.resolve()
    (folder / "exports").mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        # All parts start before the first address is waited for.
        broker = parts.enter_context(_run_part(folder, "broker"))
        clickhouse = parts.enter_context(_run_part(folder, "clickhouse", "--folder", os.fspath(folder / "clickhouse")))
        mailsink = parts.enter_context(_run_part(folder, "mailsink", "--folder", os.fspath(folder / "emails")))
        smtp = mailsink.address()
        yield Stack(
            folder=folder,
            kafka=broker.address()["bootstrap"],
            clickhouse=clickhouse.address()["url"],
            smtp=f"smtp://{smtp['host']}:{smtp['port']}",
        )


@dataclass(frozen=True)
class Part:
    """A started process that announces its address."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    first_line: "queue.Queue[bytes]"

    def address(self) -> dict[str, Any]:
        """Wait until the part is ready and return what it announced."""
        try:
            line = self.first_line.get(timeout=READY_SECONDS)
        except queue.Empty:
            line = b""
        if not line:
            reason = self.log.read_text(errors="replace").strip()[-2000:]
            raise RuntimeError(
                f"The embedded {self.name} did not start. Its log, {self.log}, ends with: {reason or '(nothing)'}"
            )
        announced: dict[str, Any] = json.loads(line)
        return announced


@contextmanager
def _run_part(folder: Path, name: str, *arguments: str) -> Iterator[Part]:
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", f"embedded.{name}", "--until-stdin-closes", *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # the kernel closes it when this process ends, even if it is killed
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C must reach this process only, which stops the parts itself
            env={**os.environ, "TZ": "UTC"},
        )
    try:
        yield Part(name, process, log, _read_first_line(process))
    finally:
        _stop(process)


def _read_first_line(process: subprocess.Popen[bytes]) -> "queue.Queue[bytes]":
    """Read in a thread, because a pipe can't be read with a timeout."""
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = _pipe(process.stdout)
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    return lines


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _pipe(process.stdin).close()
    _pipe(process.stdout).close()


def _pipe(stream: Any) -> BinaryIO:
    """Narrow the type of a pipe, which Popen declares as optional."""
    pipe: BinaryIO = stream
    return pipe
