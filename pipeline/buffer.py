"""Buffers bytes in memory for libraries that want a file to write to."""

Chunk = bytes | memoryview
"""A piece of a file, of a few MiB; a view's memory is never changed."""


class WriteBuffer:
    """A writable file in memory; `take` returns and drops what was written since the last call."""

    closed = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._written = 0
        self.held = 0

    def write(self, data: bytes) -> int:
        """Store a copy, because the caller may reuse its memory."""
        self._chunks.append(bytes(data))
        self._written += len(data)
        self.held += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes written in total."""
        return self._written

    def flush(self) -> None:
        """Do nothing: the bytes are stored already."""

    def close(self) -> None:
        """Do nothing: the bytes can still be taken."""

    def take(self) -> bytes:
        """Return the stored bytes and drop them."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.held = 0
        return data
