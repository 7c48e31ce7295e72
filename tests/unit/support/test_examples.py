"""Checks the number of examples of property tests."""

import os
import subprocess
import sys

import pytest

from tests.support.documents import ROOT


@pytest.mark.parametrize("cases", ["abc", "0", "-5"])
def test_a_wrong_number_of_examples_is_refused_in_a_sentence(cases: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", __file__],
        cwd=ROOT,
        env=os.environ | {"CASES": cases, "WAYBILL_TEST_REAL": "off"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == pytest.ExitCode.USAGE_ERROR
    assert shown.stderr.strip() == f"ERROR: CASES is {cases!r}; it must be a number of examples, 1 or more"
