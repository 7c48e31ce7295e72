"""Builds the image without a container engine, runs Waybill in it, and prints its size and start times.

For Debian with debootstrap, as root. The clean root is kept in the tests' cache; the rest is built again.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from cli.build import clickhouse_client, engine
from config.settings import load
from config.tables import users
from embedded.sample import PROJECTS, fill
from embedded.schema import create_langfuse_schema
from embedded.stack import run_stack
from tests.image import roots
from tests.image.dockerfile import Context
from tests.services.installed import cache_folder
from tests.services.process import free_port

ROWS = 2_000
PATIENCE = 90.0


def main() -> None:
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("this needs root, and Debian's debootstrap")
    base = roots.debian(cache_folder())
    with tempfile.TemporaryDirectory(prefix="waybill-image-") as folder:
        root, context = roots.build(base, Path(folder))
        _say("size of the root", f"{roots.size(root) / 1e6:.0f} MB, of which {_added(root):.0f} MB are Waybill's")
        _try(root, context)


def _try(root: Path, context: Context) -> None:
    """Run every command that an installation needs, then an export, inside the root; AssertionError if one fails."""
    home = root / context.folder.lstrip("/")
    with run_stack(home / "stack") as stack:
        outside = load(stack.environment())
        database = engine(outside)
        with clickhouse_client(outside) as client:
            create_langfuse_schema(client, database)
            fill(client, database, rows=ROWS)
        somebody = _somebody(database)
        database.dispose()  # this removes its files beside the database
        for path in (home / "stack", *(home / "stack").rglob("*")):
            if path.name.startswith(("waybill.sqlite", "exports", "stack")):
                os.chown(path, *(int(each) for each in context.user.split(":")))
        environment = {name: value.replace(str(root), "") for name, value in stack.environment().items()}
        waybill = _Command(root, context, environment)
        _say("waybill --help", f"{_seconds(lambda: waybill('--help')):.1f} s")
        waybill("migrate")
        sys.stdout.write(waybill("doctor"))
        with waybill.daemon("consumer") as until_ready:
            _say("consumer is ready after", f"{until_ready:.1f} s")
            with waybill.daemon("notify"):
                job = json.loads(waybill("create", PROJECTS[0], "--user", somebody, "--wait", "--json"))
                _eventually(lambda: list(stack.emails.glob("*.eml")), "a mail")
        assert job["status"] == "COMPLETED", job
        (file,) = stack.exports.rglob("*.csv")
        assert file.stat().st_uid == int(context.user.partition(":")[0]), "the file is another user's"
        _say("export", f"{job['status']}, {file.stat().st_size:,} bytes, mailed")


class _Command:
    """The image's entry point, run in its root as its user."""

    def __init__(self, root: Path, context: Context, environment: Mapping[str, str]) -> None:
        self._root, self._context, self._environment = root, context, environment

    def __call__(self, *arguments: str) -> str:
        """Run a command, and return its output; CalledProcessError if it fails."""
        ran = subprocess.run(
            self._line(arguments, {}), stdout=subprocess.PIPE, text=True, check=True, stdin=subprocess.DEVNULL
        )
        return ran.stdout

    @contextlib.contextmanager
    def daemon(self, name: str) -> Iterator[float]:
        """Run a daemon; returns the seconds until it was ready."""
        port = free_port()
        extra = {
            "WAYBILL_INTERNAL_PORT": str(port),
            "WAYBILL_HTTP_PORT": "0",
            "WAYBILL_HTTP_HOST": "127.0.0.1",
            "WAYBILL_LOG_LEVEL": "WARNING",
        }
        began = time.monotonic()
        process = subprocess.Popen(self._line([name], extra), stdin=subprocess.DEVNULL)
        try:
            _eventually(lambda: _ready(port), f"{name} to be ready")
            yield time.monotonic() - began
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0, f"{name} ended with {process.returncode}"

    def _line(self, arguments: Any, extra: Mapping[str, str]) -> list[str]:
        command = [*self._context.entrypoint, *arguments]
        return roots.entered(self._root, self._context, command, {**self._environment, **extra})


def _somebody(database: Engine) -> str:
    with database.connect() as connection:
        return str(connection.execute(select(users.c.id).where(users.c.email.is_not(None))).scalar())


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _eventually(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what} in vain"
        time.sleep(0.05)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _added(root: Path) -> float:
    return roots.size(root / "opt") / 1e6


def _say(what: str, value: str) -> None:
    print(f"{what:<24} {value}", flush=True)


if __name__ == "__main__":
    main()
