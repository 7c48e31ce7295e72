"""Chooses the sizes of an upload's parts, and makes the bodies of the requests that send them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence

MAX_PARTS = 10_000
"""The most parts of an upload, in S3 and in the stores that are compatible."""

EVEN_PARTS = 8_000
"""The first parts have the same size, because some stores complete an upload only if all parts but the last do."""

LARGEST_OBJECT = 5 << 40
"""The largest object that S3 stores, in bytes."""

_GROWTH = 512 << 10
_SPARE = 2
_UNIT = 1 << 20
_PIECE_BYTES = 256 << 10


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


class Body:
    """The content of an object or part, in pieces that are never copied to one: for a single request at a time.

    The client signs it as a file, and sends it as an iterable. Each iteration starts at the first byte, because the
    client may repeat a request.
    """

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._pieces = [memoryview(piece) for piece in pieces]
        self._size = sum(len(piece) for piece in self._pieces)
        self._place = 0

    def __len__(self) -> int:
        return self._size

    def cut(self) -> Iterator[memoryview]:
        """Yield the content in pieces of up to 256 KiB."""
        for piece in self._pieces:
            for start in range(0, len(piece), _PIECE_BYTES):
                yield piece[start : start + _PIECE_BYTES]

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, or all that are left."""
        start, self._place = self._place, self._size if size < 0 else min(self._place + size, self._size)
        return b"".join(self._find(start, self._place))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as in a file, and return it."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """Return the place of the next byte to read."""
        return self._place

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for piece in self.cut():
            yield piece
            await asyncio.sleep(0)  # other requests are sent in between

    def _find(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield what is between two places."""
        for piece in self._pieces:
            if start < len(piece) and end > 0:
                yield piece[max(start, 0) : end]
            start, end = start - len(piece), end - len(piece)
