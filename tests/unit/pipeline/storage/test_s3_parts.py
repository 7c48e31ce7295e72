import pytest

from pipeline.storage import S3Options
from pipeline.storage.s3_parts import EVEN_PARTS, MAX_PARTS, first_part_size, part_size

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize("first", [5 * MIB, 10 * MIB, 100 * MIB])
def test_the_first_attempt_holds_a_terabyte_in_parts_that_s3_allows(first: int) -> None:
    sizes = [part_size(number, first) for number in range(1, MAX_PARTS + 1)]
    assert sum(sizes) >= TIB
    assert max(sizes) <= 5 * GIB
    assert sizes[:EVEN_PARTS] == [first] * EVEN_PARTS


def test_the_setting_is_the_size_until_an_attempt_has_written_half_of_what_its_parts_hold() -> None:
    assert [first_part_size(10 * MIB, expected) for expected in (0, 1, 39 * GIB)] == [10 * MIB] * 3
    assert first_part_size(10 * MIB, 40 * GIB) == 11 * MIB
    assert first_part_size(int(12.5 * MIB), 0) == 13_107_200


@pytest.mark.parametrize("written", [79 * GIB, 500 * GIB, TIB, 2 * TIB])
def test_the_even_parts_of_the_next_attempt_hold_twice_what_was_written(written: int) -> None:
    size = first_part_size(10 * MIB, written)
    assert 2 * written <= size * EVEN_PARTS < 2 * written + EVEN_PARTS * MIB


def test_a_count_of_bytes_that_no_file_can_have_asks_for_no_larger_parts_than_s3_allows() -> None:
    assert first_part_size(10 * MIB, 2**63 - 1) == first_part_size(10 * MIB, 5 * TIB) < 2 * GIB


@pytest.mark.parametrize(
    ("attempts", "pauses"), [(None, (1.0, 2.0)), (1, ()), (2, (1.0,)), (3, (1.0, 2.0)), (5, (1.0, 2.0, 2.0, 2.0))]
)
def test_a_part_is_retried_as_often_as_asked_with_the_pauses_of_all_calls(
    attempts: int | None, pauses: tuple[float, ...]
) -> None:
    assert S3Options(pauses=(1.0, 2.0), part_attempts=attempts).part_pauses == pauses
