"""Says what the pipeline asks of a store: whole objects under keys, or nothing."""

from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

MAX_LIFETIME = timedelta(days=7)
"""The longest that a link signed with S3v4 can live."""


class Upload(Protocol):
    """One object on its way; nobody can see it before `finish` returns.

    One export thread calls `write` and `finish`, inside a `with`: entering it notes what is under the key, and leaving
    it without `finish` aborts. Any call may raise Unavailable, and Cancelled after `interrupt`.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Take more bytes of the object; blocks while enough of it is on its way."""

    def finish(self) -> int:
        """Make the object visible in place of what was there on entering, check it, and return its size in bytes.

        Raises Unavailable when somebody else has put or removed an object there since: theirs stays.
        """

    def abort(self) -> None:
        """Drop what was written, in the store too; does nothing after `finish`, and never raises."""

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

    def open(self, key: str, content_type: str, attempt: int) -> Upload:
        """Start one object; `attempt` is kept with it where the store can. Talks to nobody: entering it does."""

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Return a URL that downloads the object as `filename` for `lifetime`, at most MAX_LIFETIME."""

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None where there is no object."""

    def delete(self, key: str, attempt: int) -> None:
        """Remove an object, unless a later attempt than this wrote it; one that is not there is no error."""

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys under `prefix` of uploads that began before `older_than` and never ended."""

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Drop uploads under `prefix` that began before `older_than` and never ended; return how many."""

    def check(self) -> None:
        """Raise Unavailable unless an object could be written now."""
