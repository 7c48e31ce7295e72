"""Declares the protocols of a store: complete objects under keys, or none."""

from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from config.errors import Unavailable

MAX_LIFETIME = timedelta(days=7)
"""The longest that a signed link can live, in S3 and in the stores of Azure and Google."""


class Refused(Unavailable):
    """The store responded with an error; `code` is the store's name of it."""

    def __init__(self, message: str, code: str, *, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.code = code


class Upload(Protocol):
    """The upload of one object, which becomes visible when `finish` returns.

    One export thread calls `write` and `finish` inside a `with` block. Entering it notes the object that is under the
    key. Leaving it without `finish` aborts. Any call may raise Unavailable, and Cancelled after `interrupt`.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes to the object; blocks while enough of them are in flight."""

    def finish(self) -> int:
        """Make the object visible in place of the one there on entering, check it, and return its size in bytes.

        Raises Unavailable if the object under the key was replaced or removed since: the other's result stays.
        """

    def abort(self) -> None:
        """Discard the written bytes, in the store too; does nothing after `finish`; never raises."""

    def interrupt(self) -> None:
        """Make `write` and `finish` raise Cancelled, from any thread and without blocking."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A place for finished files, called from export threads and never from an event loop.

    Keys are relative, with `/` between folders. Every call raises Unavailable when the store fails or refuses; the
    text is for the person on call.
    """

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> Upload:
        """Open one object; `attempt` is stored with it if the store can. Sends nothing before the upload is entered.

        `expected` is the largest number of bytes that an earlier attempt has written, 0 if there was none.
        """

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Return a URL that downloads the object as `filename` for `lifetime`, at most MAX_LIFETIME."""

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None if there is no object."""

    def delete(self, key: str, attempt: int) -> None:
        """Remove an object, unless a later attempt wrote it; a missing object is no error."""

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys under `prefix` of uploads that began before `older_than` and never ended."""

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Abort uploads under `prefix` that began before `older_than` and never ended; return how many."""

    def check(self, prefix: str) -> None:
        """Raise Unavailable unless an object could be written under `prefix` now."""

    def find_weaknesses(self, key: str) -> list[str]:
        """Write to `key`, and return one sentence for each guarantee that the store can't give."""
