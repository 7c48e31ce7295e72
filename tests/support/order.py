"""The order of tests in a run with several workers, of which each begins with an equal part of the list.

A worker that has finished takes over from the end of another's part. So each part begins with its share of the long
tests and ends with short ones: a long test that begins late delays the end of the run.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_WAITING = ("tests/e2e/", "tests/bridge/")
_COMPUTING = ("tests/contract/",)


def deal(tests: Sequence[T], workers: int, module_of: Callable[[T], str]) -> list[T]:
    """Order tests by worker; the tests of a long module stay together, in their order.

    Half of the workers begin with the modules that wait and the others with those that compute, so that together they
    use all cores.
    """
    modules: dict[str, list[T]] = {}
    for test in tests:
        modules.setdefault(module_of(test), []).append(test)
    waiting, computing = (
        [each for name, each in modules.items() if name.startswith(folders)] for folders in (_WAITING, _COMPUTING)
    )
    half = workers // 2
    shares = [*_share(waiting, half), *_share(computing, workers - half)] if half else [[*waiting, *computing]]
    short = (test for name, each in modules.items() if not name.startswith(_WAITING + _COMPUTING) for test in each)
    dealt: list[T] = []
    for worker, share in enumerate(shares):
        size = (len(tests) - len(dealt)) // (workers - worker)  # as pytest-xdist cuts the list
        part = [test for module in share for test in module]
        dealt += [*part, *islice(short, max(0, size - len(part)))]
    return dealt


def _share(modules: list[list[T]], workers: int) -> list[list[list[T]]]:
    """Share modules between workers, the largest first, each to the one that has the fewest tests."""
    shares: list[list[list[T]]] = [[] for _ in range(workers)]
    for module in sorted(modules, key=len, reverse=True):
        min(shares, key=lambda share: sum(map(len, share))).append(module)
    return shares
