"""Checks what the Makefile gives to the commands that it runs, and that no group of faults is left out."""

import os
import re
import subprocess

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


def test_every_group_of_the_fault_suite_is_run() -> None:
    groups = {path.name.removeprefix("test_") for path in (ROOT / "tests/faults").glob("test_*.py")}
    run = set(re.findall(r"\b\w+\.py\b", (ROOT / "tests/faults.sh").read_text()))

    assert run == groups - {"upgrade.py"}, "`make faults-upgrade` needs an older version"
