"""The faults of the group `storage`, on the emulator of Azure Blob Storage."""

import pytest

from tests.faults.case import Case, run_case
from tests.faults.storage_cases import CASES as ALL
from tests.faults.storage_cases import ONLY_S3
from tests.faults.system import System

pytestmark = pytest.mark.faults
DAEMONS = (System.consumer, System.notifier)
STORE = "azure"
CASES = tuple(each for each in ALL if each.name not in ONLY_S3)
OFTEN: tuple[str, ...] = ()


def test_the_invariants_hold_after_the_fault(system: System, case: Case, number: int) -> None:
    run_case(case, system, number)
