"""Where install.sh put things, in which versions, and why a service cannot run here."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Availability:
    """Whether a real service can be started here: the version that would be, or why not."""

    service: str
    version: str = ""
    why_not: str = ""

    def __str__(self) -> str:
        """One line for the head of a test run."""
        return f"{self.service}: {self.version or f'not here ({self.why_not})'}"


@cache
def pinned() -> dict[str, str]:
    """The versions of versions.env by name."""
    text = Path(__file__).with_name("versions.env").read_text()
    return dict(re.findall(r"^(\w+)=(\S+)$", text, re.MULTILINE))


def cache_folder() -> Path:
    """The folder that install.sh fills."""
    return Path(os.environ.get("WAYBILL_TEST_CACHE") or Path.home() / ".cache" / "waybill-tests")


def program(name: str) -> Path | None:
    """A program by name; the folders of daemons are searched too, which are on root's PATH alone."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return Path(found) if found else None


def first_line(*command: str | Path) -> str:
    """The first line that a command prints, on either stream; empty when it cannot be run."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return next(iter((ran.stdout + ran.stderr).splitlines()), "")
