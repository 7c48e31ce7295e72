"""Checks the Makefile: what it gives to commands, which Python it takes, and that no group of faults is left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT


def test_python_may_keep_the_modules_that_it_compiled() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--eval", "environment: ; @env", "environment"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "PATH=" in shown.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in shown.stdout


OLD_PYTHON = """#!/bin/sh
test "$1" != -c || exec {python} -c "import sys; sys.version_info = (3, 10, 13); $2"
mkdir -p "$3/bin"
"""


@pytest.mark.parametrize("uv", ["{venv}/bin/uv", "/bin/true"], ids=["to be installed", "installed"])
def test_an_older_python_makes_no_venv(tmp_path: Path, uv: str) -> None:
    old, venv = tmp_path / "old-python", tmp_path / "venv"
    old.write_text(OLD_PYTHON.format(python=sys.executable))
    old.chmod(0o755)

    shown = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={venv}", f"UV={uv.format(venv=venv)}", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{old} is not Python 3.11 or later" in shown.stderr
    assert not venv.exists()


def test_every_group_of_the_fault_suite_is_run() -> None:
    groups = {path.name.removeprefix("test_") for path in (ROOT / "tests/faults").glob("test_*.py")}
    run = set(re.findall(r"\b\w+\.py\b", (ROOT / "tests/faults.sh").read_text()))

    assert run == groups - {"upgrade.py"}, "`make faults-upgrade` needs an older version"
