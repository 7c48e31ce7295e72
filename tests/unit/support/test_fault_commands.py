"""Checks the commands of the fault suite that run for minutes."""

import subprocess
import sys

import pytest

from tests.support.documents import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fuzz", "soak"])
def test_a_question_for_help_starts_nothing(name: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{name}", "--help"],
        cwd=ROOT,
        env={"FUZZ_MINUTES": "0.01", "SOAK_MINUTES": "0.01", "WAYBILL_TEST_REAL": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"usage: python -m tests.faults.{name}")
