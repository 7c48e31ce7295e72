"""Redis: one server on a port of this machine, alone, as a cluster of one, or watched by a sentinel."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.services import installed
from tests.services.installed import Availability
from tests.services.process import Program, accepts, free_port, serving
from tests.support.certificates import Authority

PROGRAM = "redis-server"


@dataclass(frozen=True)
class Redis:
    """A running server; with an authority, `tls_port` accepts TLS."""

    port: int
    pid: int
    password: str = ""
    tls_port: int = 0

    def environment(self) -> dict[str, str]:
        """The settings that point Langfuse here."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port), "REDIS_AUTH": self.password}

    def run(self, *command: str) -> str:
        """Run a command of Redis, and return its result as text."""
        login = {"REDISCLI_AUTH": self.password} if self.password else {}
        return subprocess.run(
            ["env", *(f"{name}={value}" for name, value in login.items()), *_CLI, str(self.port), *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.rstrip("\n")


_CLI = ("redis-cli", "-e", "--raw", "-h", "127.0.0.1", "-p")


def available() -> Availability:
    """Whether the server can be started here."""
    program = installed.program(PROGRAM)
    if program is None:
        return Availability("redis", why_not=f"no {PROGRAM}")
    return Availability("redis", version=installed.first_line(program, "--version").partition(" sha=")[0])


@contextlib.contextmanager
def start(
    folder: Path,
    port: int | None = None,
    password: str = "",
    options: Mapping[str, str] | None = None,
    authority: Authority | None = None,
) -> Iterator[Redis]:
    """Run a server whose data is in `folder`; the same folder and port again is the same server, restarted.

    Every command that it has answered is on the disk. `options` are more lines of its configuration.
    """
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    tls = free_port() if authority is not None else 0
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        **({"requirepass": f'"{password}"'} if password else {}),
        **(_tls(authority, tls) if authority is not None else {}),
        **(options or {}),
    }
    config = folder / "redis.conf"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    program = Program("redis", [PROGRAM, config], folder / "redis.log")
    with serving(program, lambda: accepts(port)) as process:
        yield Redis(port, process.pid, password, tls)


def _tls(authority: Authority, port: int) -> dict[str, str]:
    return {
        "tls-port": str(port),
        "tls-cert-file": str(authority.certificate),
        "tls-key-file": str(authority.key),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "no",
    }


@contextlib.contextmanager
def start_sentinel(folder: Path, name: str, watched: Redis) -> Iterator[int]:
    """Run a sentinel that watches a server under a name; gives its port."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(f"bind 127.0.0.1\nport {port}\nsentinel monitor {name} 127.0.0.1 {watched.port} 1\n")
    program = Program("sentinel", [PROGRAM, config, "--sentinel"], folder / "sentinel.log")
    with serving(program, lambda: accepts(port)):
        yield port
