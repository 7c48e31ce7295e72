"""What the Makefile gives to the commands that it runs."""

import os
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
