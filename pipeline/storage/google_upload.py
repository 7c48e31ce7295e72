"""Uploads one object to Google Cloud Storage in chunks, one in flight, and completes it with a condition."""

# Google has uploads of parts in parallel, too, but they can't be completed conditionally.

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from config.errors import Cancelled, Unavailable
from config.labels import PartOutcome
from pipeline.storage.calls import GRACE_SECONDS, Calls, PartBuffer, wait_for
from pipeline.storage.google_client import DENIED, MISSING, OVERTAKEN, RESUME, Client, Description, read_stored
from pipeline.storage.types import Refused

logger = logging.getLogger(__name__)

ATTEMPT = "waybill-attempt"
"""The name of the metadata that contains the attempt."""


@dataclass(frozen=True)
class Target:
    """What an upload writes and how: chunks of `chunk_size` bytes, a multiple of 256 KiB, the last one smaller.

    `pauses` are the seconds before each retry of a chunk.
    """

    description: Description
    attempt: int
    chunk_size: int
    pauses: tuple[float, ...]


class Chunk:
    """A chunk of an upload, from the byte `start`; `total` is the size of the file if the chunk is its last one."""

    def __init__(self, client: Client, address: str, start: int, body: bytes, total: int | None) -> None:
        self._client = client
        self._address = address
        self._start = start
        self._body = body
        self._total = total
        self._is_repeated = False

    def send(self) -> Mapping[str, Any]:
        """Send the chunk, or on a retry only what is not stored yet; return the properties of a complete object."""
        end, total = self._start + len(self._body), "*" if self._total is None else str(self._total)
        stored = self._start
        if self._is_repeated:
            response = self._client.send(self._address, f"bytes */{total}")
            if response.status != RESUME:
                return response.content
            stored = read_stored(response)
        self._is_repeated = True
        while stored < end or (self._total is not None and stored == end):
            if stored < self._start:
                raise Unavailable(f"Google Cloud Storage has lost bytes of an upload: it has {stored:,}")
            span = f"{stored}-{end - 1}" if stored < end else "*"
            response = self._client.send(self._address, f"bytes {span}/{total}", self._body[stored - self._start :])
            if response.status != RESUME:
                return response.content
            before, stored = stored, read_stored(response)
            if stored <= before:
                raise Unavailable("Google Cloud Storage has stored nothing of a chunk")
        return {}


class GoogleUpload:
    """The upload of one object, in a single request if it is smaller than a chunk; implements Upload."""

    def __init__(self, calls: Calls, client: Client, target: Target, on_part: Callable[[PartOutcome], None]) -> None:
        self._calls = calls
        self._client = client
        self._target = target
        self._name = target.description.name
        self._on_part = on_part
        self._entered = False
        self._ended = False
        self._interrupted = threading.Event()
        self._seen = 0
        self._published: str | None = None
        self._address: str | None = None
        self._buffer = PartBuffer(target.chunk_size)
        self._in_flight: Future[Mapping[str, Any]] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Fill chunks, and send each full one."""
        view = memoryview(data)
        while view:
            self._check_state()
            view = self._buffer.fill(view)
            if self._buffer.is_full:
                self._send()

    def finish(self) -> int:
        """Send the rest with the end of the file, and compare the object's size with the bytes written."""
        self._check_state()
        if self._address is None:
            body = self._buffer.take()
            self._publish(self._calls.start("put", lambda: self._client.put(self._describe(), body)))
        else:
            self._collect()
            start, body = self._buffer.taken, self._buffer.take()
            self._publish(self._start_chunk(self._address, start, body, self._buffer.taken))
        self._verify()
        self._ended = True
        return self._buffer.taken

    def abort(self) -> None:
        """End the upload once no chunk is in flight."""
        if self._ended:
            return
        self._ended = True
        if self._in_flight is not None:
            wait([self._in_flight], timeout=GRACE_SECONDS)
            self._in_flight.cancel()
        address = self._address
        if address is None:
            return
        try:
            self._calls.run("cancel", lambda: self._client.cancel(address))
        except Unavailable:
            # It takes no storage, and ends by itself after a week.
            logger.warning("could not cancel an upload", extra={"key": self._name}, exc_info=True)

    def interrupt(self) -> None:
        """Make blocked and later calls raise Cancelled."""
        self._interrupted.set()

    def _check_state(self) -> None:
        if self._ended or not self._entered:
            raise ValueError("the upload has ended, or was not entered")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _describe(self) -> Description:
        metadata = {ATTEMPT: str(self._target.attempt)}
        return replace(self._target.description, metadata=metadata, generation=self._seen)

    def _send(self) -> None:
        """Send the held bytes as a chunk, once the chunk before is stored; they are copied only then."""
        if self._address is None:
            self._address = self._explained(self._calls.start("begin", lambda: self._client.begin(self._describe())))
        self._collect()
        start = self._buffer.taken
        self._in_flight = self._start_chunk(self._address, start, self._buffer.take(), None)

    def _start_chunk(self, address: str, start: int, body: bytes, total: int | None) -> Future[Mapping[str, Any]]:
        chunk = Chunk(self._client, address, start, body, total)
        retried = self._on_part
        return self._calls.start(
            "put_chunk", chunk.send, on_retry=lambda: retried("retried"), pauses=self._target.pauses
        )

    def _collect(self) -> None:
        """Wait until the chunk in flight is stored; if it fails, the upload fails."""
        if self._in_flight is None:
            return
        try:
            properties = self._explained(self._in_flight)
        except (Unavailable, CancelledError):
            self._on_part("failed")
            raise
        self._in_flight = None
        if properties:
            raise Unavailable("Google Cloud Storage has completed an upload before its end")
        self._on_part("stored")

    def _publish(self, call: Future[Mapping[str, Any]]) -> None:
        """Wait for the call that makes the object visible; Unavailable if another was stored since entering."""
        try:
            self._published = self._explained(call).get("generation")
        except Unavailable:
            # The response may be lost after the request was applied: then the object is stored, by this attempt.
            head = self._load_head()
            if head is None or not self._is_ours(head):
                self._on_part("failed")
                raise
        self._on_part("stored")

    def _explained(self, call: Future[Any]) -> Any:
        try:
            return wait_for(call, self._interrupted)
        except Refused as refused:
            if refused.code in OVERTAKEN:
                raise Unavailable(f"another attempt has written {self._name} since this one began") from refused
            raise

    def _load_head(self) -> Mapping[str, Any] | None:
        call = self._calls.start("get", lambda: self._client.load(self._name))
        return load_if_present(lambda: wait_for(call, self._interrupted))

    def _is_ours(self, head: Mapping[str, Any]) -> bool:
        known = load_attempt(head) == self._target.attempt or head["generation"] == self._published
        return bool(int(head["size"]) == self._buffer.taken and known)

    def _verify(self) -> None:
        head = self._load_head()
        if head is None:
            raise Unavailable(f"Google Cloud Storage reported {self._name} as stored but has no such object")
        if not self._is_ours(head):
            raise Unavailable(f"Google Cloud Storage has another object ({head['size']} bytes) than the one written")

    def __enter__(self) -> Self:
        head = self._load_head()
        self._seen = 0 if head is None else int(head["generation"])
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def load_if_present(load: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the properties from a call, or None if the object is missing or looks like that to these credentials.

    For a missing object, Google answers "denied" to credentials that may not list the bucket.
    """
    try:
        return load()
    except Refused as refused:
        if refused.code in MISSING | DENIED:
            return None
        raise


def load_attempt(head: Mapping[str, Any]) -> int:
    """Return the attempt that wrote an object, 0 if its properties do not contain it."""
    attempt = (head.get("metadata") or {}).get(ATTEMPT, "")
    return int(attempt) if attempt.isdecimal() else 0
