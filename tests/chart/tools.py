"""Runs the tools that tools.sh installs, and says what they said when they fail."""

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.services.installed import cache_folder, pinned

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"


@cache
def kept(name: str) -> Path:
    """A file or folder of the cache; without it the test is skipped, or fails where real services are required."""
    path = cache_folder() / name
    if not path.exists():
        why = f"tests/services/tools.sh has yet to install {name}"
        if os.environ.get("WAYBILL_TEST_REAL") == "require":
            pytest.fail(why)
        pytest.skip(why)
    return path


def tool(name: str) -> Path:
    """A program of the cache, in its pinned version."""
    versions = pinned() | {"PROMTOOL": pinned()["PROMETHEUS"]}
    return kept(f"{name}-{versions[name.upper().replace('-', '_')]}")


def run(name: str, *arguments: str | Path, stdin: str = "") -> str:
    """Run a tool in the chart's folder and give what it printed; fails the test when the tool fails."""
    ran = subprocess.run([tool(name), *arguments], capture_output=True, text=True, input=stdin, check=False, cwd=CHART)
    assert ran.returncode == 0, f"{name} {' '.join(map(str, arguments))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
