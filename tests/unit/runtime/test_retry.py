import math
from itertools import islice

from runtime.retry import Backoff


def test_the_delay_grows_by_the_factor_up_to_the_longest() -> None:
    backoff = Backoff(0.5, longest=3)

    assert [backoff.delay(failures) for failures in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


def test_delays_are_those_after_one_two_and_more_failures_without_end() -> None:
    assert list(islice(Backoff(1, longest=9, factor=3).delays(), 5)) == [1, 3, 9, 9, 9]


def test_a_delay_without_a_limit_keeps_growing() -> None:
    assert Backoff(5).delay(8) == 640


def test_the_longest_delay_is_given_after_any_number_of_failures() -> None:
    assert Backoff(1, longest=30).delay(1_000_000) == 30
    assert math.isinf(Backoff(1).delay(1_000_000))
