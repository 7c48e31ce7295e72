"""Servers as child processes: started in their own folder, awaited, and stopped with whoever started them."""

import contextlib
import errno
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "waybill-services-"
_PORTS = range(15_000, 32_768)  # Linux gives the ports from 32,768 on to outgoing connections (ip_local_port_range)
_PATIENCE = 20.0  # seconds between asking a server to end and killing it


@dataclass(frozen=True)
class Program:
    """What to run: the command, its log file, the account it runs under and the signal that ends it.

    `account` is given where a server refuses to run as root. `end` is also what the kernel sends it when
    the process that started it dies.
    """

    name: str
    command: Sequence[str | Path]
    log: Path
    account: str | None = None
    end: signal.Signals = signal.SIGTERM

    def tail(self, lines: int = 30) -> str:
        """The last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wrapped(self) -> list[str]:
        """The command as it is run: bound to our life, under its account."""
        drop = ["--reuid", self.account, "--regid", self.account, "--clear-groups"] if self.account else []
        # setpriv, not a preexec_fn: that is not safe in a process that has threads.
        wrapper = ["setpriv", "--pdeathsig", self.end.name.removeprefix("SIG"), *drop]
        return [*wrapper, *(str(part) for part in self.command)]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses at the moment and that no outgoing connection will be given."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def accepts(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def give(path: Path, account: str | None) -> None:
    """Make an account the owner of a path."""
    if account:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def run(program: Program, seconds: float = 60) -> None:
    """Run a command that ends by itself; raises RuntimeError with the log's tail when it fails."""
    with program.log.open("ab") as log:
        ended = subprocess.run(
            program.wrapped(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds, check=False
        )
    if ended.returncode:
        raise RuntimeError(f"{program.name} ended with status {ended.returncode}:\n{program.tail()}")


@contextlib.contextmanager
def serving(program: Program, ready: Callable[[], bool], seconds: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block runs, entered once `ready` says so.

    To be called from a thread that outlives the block: the kernel ties the child to the thread that started it.
    Raises RuntimeError with the log's tail when the server ends or is not ready within `seconds`.
    """
    with program.log.open("ab") as log:
        process = subprocess.Popen(
            program.wrapped(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await(program, process, ready, seconds)
        yield process
    finally:
        _stop(process, program.end)


def _await(program: Program, process: subprocess.Popen[bytes], ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{program.name} ended with status {process.returncode}:\n{program.tail()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{program.name} was not ready within {seconds:.0f} s:\n{program.tail()}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], end: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, end)
    try:
        process.wait(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder for servers' data that other accounts can enter, removed at the end.

    A lock in it lives as long as its owner, so folders that a crashed run left are told apart and removed here.
    """
    _remove_abandoned()
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    path.chmod(0o711)
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (path / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
