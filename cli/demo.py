"""Runs one export on embedded services, from the event on Kafka to the file and the email."""

import email
import email.policy
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from sqlalchemy import Engine, select

from cli import build
from cli.create import CompressionOption, FormatOption
from cli.exports import find_job, publish_request
from cli.output import console, fail, format_size, print_fields
from cli.progress import follow_progress
from config.events import Status
from config.links import read_links
from config.settings import Settings, load
from config.tables import users
from consumer.models import Job, NewExport
from runtime.migrations import migrate

T = TypeVar("T")
PATIENCE = 60.0
PROJECT = "demo"


@dataclass(frozen=True)
class Daemon:
    """A running `waybill consumer` or `waybill notify`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def url(self) -> str | None:
        """Return where it serves HTTP, or None while it starts."""
        if self.process.poll() is not None:
            fail(f"{self.name} ended with status {self.process.returncode}; its log is {self.log}")
        for line in self.log.read_text(errors="replace").splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("message") == "listening":
                return f"http://127.0.0.1:{record['port']}"
        return None

    def metrics(self) -> str:
        """Return its metrics, as Prometheus reads them."""
        with urllib.request.urlopen(f"{self.url()}/metrics") as answer:  # noqa: S310 (a daemon on this machine)
            text: str = answer.read().decode()
            return text

    def peak_memory(self) -> str:
        """Return its peak resident memory, if the system reports it."""
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
            return f"{int(found[1]) / 1024:.0f} MiB" if found else "not reported by this system"
        return "not reported by this system"


def demo(
    rows: Annotated[int, typer.Option(min=0, help="How many traces to create and export.")] = 50_000,
    format_: FormatOption = "CSV",
    compression: CompressionOption = "none",
    folder: Annotated[
        Path | None, typer.Option(help="Where to keep all data; a new temporary folder by default.")
    ] = None,
) -> None:
    """Run an export from request to email on embedded services, and show the file, the email and the counters."""
    from embedded.sample import fill
    from embedded.stack import run_stack

    kept = folder or Path(tempfile.mkdtemp(prefix="waybill-demo-"))
    with ExitStack() as running:
        _say("Starting a broker, ClickHouse, SQLite, a folder for files and a mail server")
        stack = running.enter_context(run_stack(kept))
        port = _free_port()
        environment = stack.environment() | {
            "WAYBILL_HEARTBEAT_SECONDS": "0.5",
            "WAYBILL_HTTP_PORT": str(port),
            "WAYBILL_INTERNAL_PORT": "0",
            "WAYBILL_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "WAYBILL_SECRET_KEY": secrets.token_hex(32),
        }
        settings = load(environment)
        with _prepare(settings) as (client, engine):
            _say("Starting waybill consumer and waybill notify")
            consumer, notifier = running.enter_context(_daemons(kept, environment))
            _say(f"Creating {rows:,} traces, with their scores and comments")
            fill(client, engine, rows=rows)
        for daemon in (consumer, notifier):
            _eventually(daemon.url, f"{daemon.name} to listen")
        _say("Requesting the export: a row, and an event on Kafka")
        job = _export(settings, format_.upper(), compression)
        if job.status != Status.COMPLETED:
            fail(describe_failure(job, kept))
        message = _eventually(lambda: next(stack.emails.glob("*.eml"), None), "an email")
        _show_file(job, stack.exports, settings)
        _show_email(message)
        _show_counters(consumer, notifier)
    _say_what_remains(kept)


@contextmanager
def _prepare(settings: Settings) -> Iterator[tuple[Any, Engine]]:
    """Create all tables; give the clients of both databases."""
    from embedded.schema import create_langfuse_schema

    engine = build.engine(settings)
    with build.clickhouse_client(settings) as client:
        create_langfuse_schema(client, engine)
        migrate(engine)
        yield client, engine


def _export(settings: Settings, format_: str, compression: str) -> Job:
    jobs = build.jobs(settings)
    query: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None, "compression": compression}
    user = _first_user(settings)
    new = NewExport(project_id=PROJECT, user_id=user, name=f"All traces as {format_}", query=query, format=format_)
    job = jobs.create(new, datetime.now(UTC))
    publish_request(settings, job.project_id, job.id)
    return follow_progress(partial(find_job, jobs, job.project_id, job.id))


def _first_user(settings: Settings) -> str:
    with build.engine(settings).connect() as connection:
        return str(
            connection.execute(select(users.c.id).where(users.c.email.is_not(None)).order_by(users.c.id)).scalar()
        )


@contextmanager
def _daemons(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Daemon, Daemon]]:
    """Run consumer and notifier while the block runs; they are starting when it is entered."""
    consumer = _start("consumer", folder, environment)
    notifier = _start("notify", folder, environment)
    try:
        yield consumer, notifier
    finally:
        for daemon in (consumer, notifier):
            daemon.process.terminate()
        for daemon in (consumer, notifier):
            daemon.process.wait()


def _start(name: str, folder: Path, environment: Mapping[str, str]) -> Daemon:
    log = folder / f"{name}.log"
    private = {"WAYBILL_HTTP_HOST": "127.0.0.1", "WAYBILL_LOG_FORMAT": "json"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", name],
            env={**os.environ, **private, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    return Daemon(name, process, log)


def _free_port() -> int:
    """Find a port for the consumer: the links contain it, so it must be known before the consumer serves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _eventually(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    fail(f"timed out after {PATIENCE:.0f} s waiting for {what}")


def describe_failure(job: Job, folder: Path) -> str:
    """Say how an export ended that has no file; a cancelled one has no reason."""
    reason = f": {job.log.rstrip('.')}" if job.log else ""
    return f"The export ended {job.status}{reason}; the logs are in {folder}"


def _show_file(job: Job, exports: Path, settings: Settings) -> None:
    links = read_links(settings)
    if job.run is None or job.run.object_key is None or links is None:
        fail("the export has no file, or no link")
    path, link = exports / job.run.object_key, links.write(job.project_id, job.id)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with urllib.request.urlopen(link) as stream:  # noqa: S310 (a daemon on this machine)
        fetched = hashlib.file_digest(stream, "sha256").hexdigest()
    agrees = "the same in the manifest" if digest == job.run.sha256 else f"BUT {job.run.sha256} in the manifest"
    _heading("The file")
    print_fields(
        {
            "path": path,
            "rows": f"{job.run.rows:,}",
            "bytes": f"{path.stat().st_size:,} ({format_size(path.stat().st_size)})",
            "sha256": f"{digest} ({agrees})",
            "manifest": f"{path}.manifest.json",
            "link": link,
            "fetched": f"through the link, with {'the same' if fetched == digest else 'A DIFFERENT'} sha256",
        }
    )


def _show_email(path: Path) -> None:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    text = message.get_body(("plain",))
    _heading("The email")
    print_fields({name: message[name] for name in ("From", "To", "Subject", "Message-ID")})
    console().print()
    console().print(escape(text.get_content().strip() if text else "(no text)"))


def _show_counters(consumer: Daemon, notifier: Daemon) -> None:
    _heading("The counters")
    wanted = ("_total{", "_running", "_slots", "last_success")
    for line in (consumer.metrics() + notifier.metrics()).splitlines():
        if line.startswith("waybill_") and any(each in line for each in wanted) and not line.endswith(" 0.0"):
            console().print(escape(line))
    _heading("Peak memory")
    print_fields({"consumer": consumer.peak_memory(), "notify": notifier.peak_memory()})


def _say_what_remains(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _say("All servers of the demo have stopped, so the link above no longer works")
    _say(f"All data and logs ({format_size(size)}) stay in {folder}, until you delete it")
    _say("Next: docker compose --profile load up --build tries real services; docs/install.md installs Waybill")


def _heading(text: str) -> None:
    console().print(f"\n[bold]{text}[/]\n{'─' * min(len(text), shutil.get_terminal_size().columns)}")


def _say(text: str) -> None:
    console().print(f"[bold cyan]▸[/] {escape(text)}")
