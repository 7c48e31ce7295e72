"""Runs one export on embedded services, from the event on Kafka to the file and the email."""

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy import Engine, select

from cli import build
from cli.create import CompressionOption, FormatOption
from cli.demo_report import say, show_counters, show_email, show_file
from cli.exports import find_job, publish_request
from cli.output import BAD_USAGE, fail, format_size, print_note
from cli.progress import POLL_SECONDS, follow_progress
from config.errors import Rejected
from config.events import Status
from config.settings import Settings, load
from config.tables import users
from consumer.models import Job, NewExport
from consumer.new_exports import check_new
from runtime.migrations import migrate

T = TypeVar("T")
PATIENCE = 60.0
PROJECT = "demo"
_PORTS = range(15_000, 32_768)  # Linux gives the ports from 32,768 on to outgoing connections (ip_local_port_range)


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
    rows: Annotated[
        int, typer.Option(min=0, help="How many traces to create; the other tables get rows for them.")
    ] = 50_000,
    table: Annotated[str, typer.Option(help="The table to export; `waybill tables` lists them.")] = "traces",
    format_: FormatOption = "CSV",
    compression: CompressionOption = "none",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep all data; by default a temporary folder, removed at the end.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep everything running until Ctrl-C, and show how to use it; the data stays."),
    ] = False,
) -> None:
    """Run an export from request to email on embedded services, and show the file, the email and the counters."""
    from embedded.sample import fill
    from embedded.stack import run_stack

    new = _check_request(table, format_.upper(), compression)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no daemon stays behind
    with _open_folder(folder, keep=keep) as data, ExitStack() as running:
        say("Starting a broker, ClickHouse, SQLite, a folder for files and a mail server")
        stack = running.enter_context(run_stack(data))
        environment = stack.environment() | _demo_settings()
        settings = load(environment)
        with _prepare(settings) as (client, engine):
            say("Starting waybill consumer and waybill notify")
            consumer, notifier = running.enter_context(_daemons(data, environment))
            say(f"Creating {rows:,} traces, with their scores and comments")
            fill(client, engine, rows=rows)
        for daemon in (consumer, notifier):
            _eventually(daemon.url, f"{daemon.name} to listen")
        say("Requesting the export: a row, and an event on Kafka")
        job = _export(settings, new)
        if job.status != Status.COMPLETED:
            fail(describe_failure(job))
        message = _eventually(lambda: next(stack.emails.glob("*.eml"), None), "an email")
        show_file(job, stack.exports, settings)
        show_email(message)
        show_counters(
            consumer.metrics() + notifier.metrics(),
            {daemon.name: daemon.peak_memory() for daemon in (consumer, notifier)},
        )
        if keep:
            say(f"The operators' page is {consumer.url()}/")
            settings_file = shlex.quote(str(_write_settings(data, environment)))
            say(f"To use other commands, such as waybill list, in another shell, first run: . {settings_file}")
            _wait_for_interrupt()


def _check_request(table: str, format_: str, compression: str) -> NewExport:
    """Return the export to create, without a user; end the command if it can't be honoured."""
    query: dict[str, Any] = {"tableName": table, "filter": [], "orderBy": None, "compression": compression}
    new = NewExport(project_id=PROJECT, user_id="", name=f"All {table} as {format_}", query=query, format=format_)
    try:
        check_new(new, datetime.now(UTC))
    except Rejected as refused:
        fail(str(refused), status=BAD_USAGE)
    return new


@contextmanager
def _open_folder(folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the folder for all data; a temporary one is removed at the end, unless it is kept or the demo fails."""
    data = folder or Path(tempfile.mkdtemp(prefix="waybill-demo-"))
    removed = folder is None and not keep
    try:
        yield data
    except KeyboardInterrupt:
        if removed:
            shutil.rmtree(data, ignore_errors=True)
        raise
    except BaseException:
        print_note(f"The data and logs of the demo stay in {data}")
        raise
    _say_what_remains(data, removed=removed)
    if removed:
        shutil.rmtree(data, ignore_errors=True)


def _demo_settings() -> dict[str, str]:
    port = _free_port()
    return {
        "WAYBILL_HEARTBEAT_SECONDS": "0.5",
        "WAYBILL_HTTP_PORT": str(port),
        "WAYBILL_INTERNAL_PORT": "0",
        "WAYBILL_OPERATOR_TOKEN": secrets.token_hex(32),
        "WAYBILL_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "WAYBILL_SECRET_KEY": secrets.token_hex(32),
    }


def _write_settings(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write a file that lets a shell use the demo with this `waybill`; only this user may read it."""
    path = folder.resolve() / "settings.sh"
    path.touch(mode=0o600)
    lines = ["# The operators' page asks for WAYBILL_OPERATOR_TOKEN before it changes anything."]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append(f'export PATH={shlex.quote(sysconfig.get_path("scripts"))}:"$PATH"')
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _wait_for_interrupt() -> None:
    say("Everything keeps running, so the link and the email can be opened; Ctrl-C ends it")
    with suppress(KeyboardInterrupt):
        while True:  # a signal that reaches a thread of a library does not end a wait of this one
            time.sleep(POLL_SECONDS)


@contextmanager
def _prepare(settings: Settings) -> Iterator[tuple[Any, Engine]]:
    """Create all tables; give the clients of both databases."""
    from embedded.schema import create_langfuse_schema

    engine = build.engine(settings)
    with build.clickhouse_client(settings) as client:
        create_langfuse_schema(client, engine)
        migrate(engine)
        yield client, engine


def _export(settings: Settings, new: NewExport) -> Job:
    jobs = build.jobs(settings)
    job = jobs.create(replace(new, user_id=_first_user(settings)), datetime.now(UTC))
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
    while True:
        port = secrets.choice(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def _eventually(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    fail(f"timed out after {PATIENCE:.0f} s waiting for {what}")


def describe_failure(job: Job) -> str:
    """Say how an export ended that has no file; a cancelled one has no reason."""
    reason = f": {job.log.rstrip('.')}" if job.log else ""
    return f"The export ended {job.status}{reason}."


def _say_what_remains(folder: Path, *, removed: bool) -> None:
    say("All servers of the demo have stopped, so the link above no longer works")
    size = format_size(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    if removed:
        say(f"All data and logs ({size}) are removed; with --keep, everything stays up and the data is kept")
    else:
        say(f"All data and logs ({size}) stay in {folder}, until you delete it")
    say("Next: docker compose --profile load up --build tries real services; docs/install.md installs Waybill")
