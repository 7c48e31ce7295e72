"""The body of a request to S3, which is sent without a copy of it."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp.payload import Payload

_PIECE_BYTES = 256 << 10


class Body(Payload):
    """The content of an object or part, in pieces that are not joined. One request at a time uses it.

    botocore reads it as a file, to sign it. aiohttp calls `write`, more than once if it repeats a request or follows
    a redirect, and each call sends all bytes.
    """

    _autoclose = True

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        super().__init__(None, content_type="application/octet-stream")
        self._pieces = [memoryview(piece) for piece in pieces]
        self._size: int = sum(len(piece) for piece in self._pieces)
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

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content as text; nothing here calls it, but every payload has it."""
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        """Send the content."""
        for piece in self.cut():
            await writer.write(piece)
            await asyncio.sleep(0)  # other requests are sent in between

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:  # noqa: ARG002 (a request announces the whole content)
        """Send the content."""
        await self.write(writer)

    def _find(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield what is between two places."""
        for piece in self._pieces:
            if start < len(piece) and end > 0:
                yield piece[max(start, 0) : end]
            start, end = start - len(piece), end - len(piece)
