"""Each worker of a run gets a fair share of the long tests, and begins with it."""

from itertools import groupby

import pytest

from tests.support.order import deal

LONG = {"tests/e2e/a": 5, "tests/e2e/b": 3, "tests/bridge/c": 3, "tests/contract/d": 9, "tests/contract/e": 4}
SHORT = {"tests/golden/f": 3, "tests/unit/g": 40, "tests/unit/cli/h": 20}


def module_of(test: str) -> str:
    return test.partition("::")[0]


def is_long(test: str) -> bool:
    return module_of(test) in LONG


def names_of(modules: dict[str, int]) -> list[str]:
    return [f"{module}::{number:02}" for module, count in modules.items() for number in range(count)]


def parts_of(dealt: list[str], workers: int) -> list[list[str]]:
    """Cut a list as pytest-xdist does."""
    parts = []
    for left in range(workers, 0, -1):
        size = len(dealt) // left
        parts.append(dealt[:size])
        dealt = dealt[size:]
    return parts


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("modules", [{**SHORT, **LONG}, LONG, SHORT, {}])
def test_every_test_is_dealt_once(modules: dict[str, int], workers: int) -> None:
    tests = names_of(modules)

    assert sorted(deal(tests, workers, module_of)) == sorted(tests)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_each_worker_begins_with_its_long_tests_and_ends_with_short_ones(workers: int) -> None:
    parts = parts_of(deal(names_of({**SHORT, **LONG}), workers, module_of), workers)

    for part in parts:
        assert [kind for kind, _ in groupby(part, is_long)] == [True, False]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_long_module_stays_together_in_its_order(workers: int) -> None:
    tests = names_of({**LONG, **SHORT})
    interleaved = tests[::2] + tests[1::2]

    dealt = [test for test in deal(interleaved, workers, module_of) if is_long(test)]

    runs = {module: list(run) for module, run in groupby(dealt, module_of)}
    assert runs == {module: [test for test in interleaved if module_of(test) == module] for module in LONG}


def test_half_of_the_workers_wait_while_the_others_compute() -> None:
    modules = {f"tests/{folder}/{number}": 2 for number in range(12) for folder in ("e2e", "contract", "unit")}

    parts = parts_of(deal(names_of(modules), 4, module_of), 4)

    folders = [[folder for folder, _ in groupby(test.split("/")[1] for test in part)] for part in parts]
    assert folders == [["e2e", "unit"], ["e2e", "unit"], ["contract", "unit"], ["contract", "unit"]]
    assert len({sum("unit" not in test for test in part) for part in parts}) == 1
