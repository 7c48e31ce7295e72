"""Declares how long to wait between the tries of one operation: the only retry policy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class Backoff:
    """Delays in seconds that start at `first` and grow by `factor` with each failure, up to `longest`.

    The policy neither sleeps nor adds jitter: the caller decides how it waits.
    """

    first: float
    longest: float = math.inf
    factor: float = 2

    def delay(self, failures: int) -> float:
        """Return the seconds to wait before the next try after `failures` failed tries, counted from 1."""
        try:
            return min(self.first * float(self.factor) ** (failures - 1), self.longest)
        except OverflowError:
            return self.longest

    def delays(self) -> Iterator[float]:
        """Yield the delay after the first failure, after the second, and so on, without end."""
        return map(self.delay, count(1))
