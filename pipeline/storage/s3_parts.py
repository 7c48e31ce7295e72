"""Chooses the sizes of an upload's parts."""

MAX_PARTS = 10_000
"""The most parts of an upload, in S3 and in the stores that are compatible."""

EVEN_PARTS = 8_000
"""The first parts have the same size, because some stores complete an upload only if all parts but the last do."""

LARGEST_OBJECT = 5 << 40
"""The largest object that S3 stores, in bytes."""

_GROWTH = 512 << 10
_SPARE = 2
_UNIT = 1 << 20


def part_size(number: int, first: int) -> int:
    """Return the size in bytes of a part by its number, from 1.

    The parts after the even ones grow, so that a file that is larger than expected still fits: with a first part of
    10 MiB the even parts hold 78 GiB, and all parts a terabyte.
    """
    return first + max(0, number - EVEN_PARTS) * _GROWTH


def first_part_size(least: int, expected: int) -> int:
    """Return a size in bytes, `least` or more, of which the even parts hold twice the `expected` bytes.

    `expected` is what an earlier attempt has written, which is less than the file if that attempt was cut off.
    """
    wanted = min(expected, LARGEST_OBJECT) * _SPARE // EVEN_PARTS
    return least if wanted <= least else -(-wanted // _UNIT) * _UNIT
