"""Stands in for a file where a library wants one to write to, and hands on what was written."""


class Pieces:
    """A file in memory, emptied as it is filled: `take` returns what came since the last time."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0
        self.held = 0

    def write(self, data: bytes) -> int:
        """Keep a copy, for the caller may use its memory again."""
        self._pieces.append(bytes(data))
        self._written += len(data)
        self.held += len(data)
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were ever written."""
        return self._written

    def flush(self) -> None:
        """Do nothing: nothing waits here."""

    def close(self) -> None:
        """Do nothing: what was written can still be taken."""

    def take(self) -> bytes:
        """Return what is held, and let go of it."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        return data
