"""Starts the embedded parts in one folder, and stops them."""

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
    """Where each part is; all of it on this machine only."""

    folder: Path
    kafka: str
    clickhouse: str
    smtp: str

    @property
    def database(self) -> Path:
        """The SQLite file; made by whoever first connects."""
        return self.folder / "waybill.sqlite"

    @property
    def exports(self) -> Path:
        """The folder that stands for the bucket."""
        return self.folder / "exports"

    @property
    def mails(self) -> Path:
        """Where the mail sink keeps its `.eml` files."""
        return self.folder / "mails"

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
def started(folder: Path) -> Iterator[Stack]:
    """Run broker, ClickHouse and mail sink for as long as the block runs; their data stays in the folder.

    Should this process die, they end by themselves. Raises RuntimeError when a part does not become ready.
    """
    folder = folder.resolve()
    (folder / "exports").mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        # All are started before any is waited for.
        broker = parts.enter_context(_running(folder, "broker"))
        clickhouse = parts.enter_context(_running(folder, "clickhouse", "--folder", os.fspath(folder / "clickhouse")))
        mailsink = parts.enter_context(_running(folder, "mailsink", "--folder", os.fspath(folder / "mails")))
        mail = mailsink.address()
        yield Stack(
            folder=folder,
            kafka=broker.address()["bootstrap"],
            clickhouse=clickhouse.address()["url"],
            smtp=f"smtp://{mail['host']}:{mail['port']}",
        )


@dataclass(frozen=True)
class Part:
    """A started process that will say where it serves."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    first_line: "queue.Queue[bytes]"

    def address(self) -> dict[str, Any]:
        """Wait until the part serves and return what it announced."""
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
def _running(folder: Path, name: str, *arguments: str) -> Iterator[Part]:
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", f"embedded.{name}", "--until-stdin-closes", *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed by the kernel when this process dies, however it dies
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us: we stop the parts when we are done with them
            env={**os.environ, "TZ": "UTC"},
        )
    try:
        yield Part(name, process, log, _first_line(process))
    finally:
        _stop(process)


def _first_line(process: subprocess.Popen[bytes]) -> "queue.Queue[bytes]":
    """Read in a thread, since a pipe can't be read with a deadline."""
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
    """Narrow a pipe's type: Popen's may be None, ours were asked for."""
    pipe: BinaryIO = stream
    return pipe
