"""Checks the number of examples of property tests."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.documents import ROOT


@pytest.mark.slow
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


def test_the_number_of_ci_is_the_documented_one() -> None:
    documented = re.search(r"CI tries (\d+)", (ROOT / "CONTRIBUTING.md").read_text())
    used = re.search(r"CASES:-(\d+)", (ROOT / "tests/ci.sh").read_text())

    assert documented
    assert used
    assert documented[1] == used[1]
