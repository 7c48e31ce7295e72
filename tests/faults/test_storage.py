"""The store is busy, slow, forbidden or unavailable, or its response contradicts what it did."""

import pytest

from tests.faults.case import Case, run_case
from tests.faults.storage_cases import CASES, OFTEN
from tests.faults.system import System

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)

__all__ = ["CASES", "OFTEN"]


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
