"""PostgreSQL: one cluster in a temporary folder, durability off, with a new database for whoever asks."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGQUIT

import psycopg

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, give, run, serving

_USER = "waybill"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


@dataclass(frozen=True)
class Database:
    """One database of a running server."""

    url: str

    def environment(self) -> dict[str, str]:
        """The settings that point Waybill here."""
        return {"DATABASE_URL": self.url}


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    pid: int

    def url(self, database: str) -> str:
        """The address of one of its databases, as `DATABASE_URL` has it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[Database]:
        """A new database, a copy of `template`, dropped at the end with whoever is still connected."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield Database(self.url(name))
        finally:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def available() -> Availability:
    """Whether the server can be started here."""
    programs = _programs()
    if programs is None:
        return Availability("postgres", why_not="no PostgreSQL server in /usr/lib/postgresql or on the PATH")
    if server_account() and not installed.program("setpriv"):
        return Availability("postgres", why_not="no setpriv")
    return Availability("postgres", version=installed.first_line(programs / "postgres", "--version"))


@contextlib.contextmanager
def start(folder: Path, port: int | None = None, settings: Mapping[str, str] = SETTINGS) -> Iterator[Postgres]:
    """Run a server on data in `folder`; the same folder and port again is the same server, restarted."""
    programs = _programs()
    if programs is None:
        raise RuntimeError("no PostgreSQL server on this machine")
    port = port or free_port()
    account = server_account()
    folder.mkdir(exist_ok=True)
    give(folder, account)
    data, log = folder / "data", folder / "postgres.log"
    if not data.exists():
        make: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            _USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        ]
        run(Program("initdb", make, log, account))
    options = [f"--{name}={value}" for name, value in settings.items()]
    # SIGQUIT: its data is thrown away, but its shared memory must be given back.
    command: list[str | Path] = [programs / "postgres", "-D", data, "-p", str(port), *options]
    server = Program("postgres", command, log, account, SIGQUIT)
    with serving(server, lambda: _answers(port)) as process:
        yield Postgres(port, process.pid)


def _programs() -> Path | None:
    if chosen := os.environ.get("WAYBILL_TEST_POSTGRES"):
        return Path(chosen)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    server = debian[-1] if debian else installed.program("postgres")
    return server.resolve().parent if server else None


def server_account() -> str | None:
    """The account of the server: it refuses to run as root, and its package makes this account."""
    return "postgres" if os.geteuid() == 0 else None


def _answers(port: int) -> bool:
    if not accepts(port):
        return False
    try:
        with psycopg.connect(f"postgresql://{_USER}@127.0.0.1:{port}/postgres", connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False
