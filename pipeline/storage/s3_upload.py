"""Uploads one object to S3 in parts, several in flight, and completes it only when every part is stored."""

# Written by hand, because s3fs uploads parts one after the other and publishes a cut file when its handle is closed
# after an error, and s3transfer has no conditional completion.

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from config.errors import Cancelled, Unavailable
from config.labels import PartOutcome
from pipeline.storage.s3_calls import Calls, Refused

logger = logging.getLogger(__name__)

MAX_PARTS = 10_000
_EVEN_PARTS = 1_000
_GROWTH = 160 << 10
_POLL_SECONDS = 0.25
_GRACE_SECONDS = 5.0
_ATTEMPT = "waybill-attempt"
_GONE = {"404", "NoSuchUpload"}
_MISSING = {"404", "NoSuchKey"}
OVERTAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
"""The error codes of S3 when another object has replaced the one that the call was made for."""


@dataclass(frozen=True)
class Target:
    """Where an upload goes and how: `headers` of the object, `part_size` (bytes) of its first parts."""

    bucket: str
    name: str
    attempt: int
    headers: dict[str, Any]
    part_size: int
    parts_in_flight: int


def part_size(number: int, first: int) -> int:
    """Return the size in bytes of a part by its number, from 1.

    The first thousand have the same size. Later parts grow, so that 10,000 of them hold 5 TB while files of usual size
    need little memory.
    """
    return first + max(0, number - _EVEN_PARTS) * _GROWTH


def load_head(calls: Calls, bucket: str, name: str) -> dict[str, Any] | None:
    """Return the head of an object, or None if there is no object."""
    return load_if_present(partial(calls.run, "head_object", Bucket=bucket, Key=name))


def load_if_present(head: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the head from a call, or None if the object is missing."""
    try:
        return head()
    except Refused as refused:
        if refused.code in _MISSING:
            return None
        raise


def load_attempt(head: Mapping[str, Any]) -> int:
    """Return the attempt that wrote an object, 0 if its head does not contain it."""
    attempt = head.get("Metadata", {}).get(_ATTEMPT, "")
    return int(attempt) if attempt.isdecimal() else 0


def abort_upload(calls: Calls, bucket: str, upload: Mapping[str, Any]) -> bool:
    """Abort an upload from a listing; False if it has ended since."""
    try:
        calls.run("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except Refused as refused:
        if refused.code in _GONE:
            return False
        raise
    return True


class S3Upload:
    """The upload of one object, in a single request if it is smaller than a part; implements Upload."""

    def __init__(self, calls: Calls, target: Target, on_part: Callable[[PartOutcome], None]) -> None:
        self._calls = calls
        self._target = target
        self._on_part = on_part
        self._condition: dict[str, str] | None = None
        self._interrupted = threading.Event()
        self._upload_id: str | None = None
        self._ended = False
        self._filling: list[memoryview] = []
        self._held = 0
        self._written = 0
        self._sizes: dict[int, int] = {}
        self._in_flight: dict[Future[dict[str, Any]], int] = {}
        self._stored: dict[int, str] = {}

    def write(self, data: bytes | memoryview) -> None:
        """Fill parts, and send each full one."""
        view = memoryview(data)
        while view:
            self._check_state()
            size = part_size(len(self._sizes) + 1, self._target.part_size)
            part, view = view[: size - self._held], view[size - self._held :]
            self._filling.append(part)
            self._held += len(part)
            if self._held == size:
                self._send()

    def finish(self) -> int:
        """Send the rest, complete the object, and compare its size with the bytes written."""
        self._check_state()
        if self._upload_id is None:
            self._publish("put_object", Body=self._take(), **self._make_headers())
            self._on_part("stored")
        else:
            if self._held:
                self._send()
            while self._in_flight:
                self._collect()
            self._complete()
            self._verify()
        self._ended = True
        return self._written

    def abort(self) -> None:
        """Abort once no part is in flight, because a part that is stored after the abort would be billed for ever."""
        if self._ended:
            return
        self._ended = True
        # The server stores a part that it has received, whether or not the client waits for the response.
        wait(self._in_flight, timeout=_GRACE_SECONDS)
        for future in self._in_flight:
            future.cancel()
        wait(self._in_flight)
        if self._upload_id is None:
            return
        try:
            abort_upload(self._calls, self._target.bucket, {"Key": self._target.name, "UploadId": self._upload_id})
        except Unavailable:
            # The cleanup aborts it later.
            logger.warning("could not abort an upload", extra={"key": self._target.name}, exc_info=True)

    def interrupt(self) -> None:
        """Make blocked and later calls raise Cancelled."""
        self._interrupted.set()

    def _check_state(self) -> None:
        if self._ended or self._condition is None:
            raise ValueError("the upload has ended, or was not entered")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _name_object(self) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": self._target.name}

    def _make_headers(self) -> dict[str, Any]:
        return {**self._target.headers, "Metadata": {_ATTEMPT: str(self._target.attempt)}}

    def _take(self) -> bytes:
        body = b"".join(self._filling)
        self._filling.clear()
        self._written += self._held
        self._held = 0
        return body

    def _send(self) -> None:
        """Send the held bytes as a part, once fewer parts are in flight; they are copied only then."""
        if self._upload_id is None:
            begun = self._wait_for(
                self._calls.start("create_multipart_upload", **self._name_object(), **self._make_headers())
            )
            self._upload_id = begun["UploadId"]
        number = len(self._sizes) + 1
        # The large parts of very large files are sent one by one, because parts in flight take memory.
        most_in_flight = max(1, self._target.parts_in_flight * self._target.part_size // self._held)
        most_in_flight = min(most_in_flight, self._target.parts_in_flight)
        while len(self._in_flight) >= most_in_flight:
            self._collect()
        body = self._take()
        future = self._calls.start(
            "upload_part",
            on_retry=lambda: self._on_part("retried"),
            PartNumber=number,
            UploadId=self._upload_id,
            Body=body,
            **self._name_object(),
        )
        self._in_flight[future] = number
        self._sizes[number] = len(body)

    def _collect(self) -> None:
        """Wait until a part is stored; if it fails, the upload fails."""
        done, _ = wait(self._in_flight, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        self._check_state()
        for future in done:
            number = self._in_flight.pop(future)
            try:
                self._stored[number] = future.result()["ETag"]
            except (Unavailable, CancelledError):
                self._on_part("failed")
                raise
            self._on_part("stored")

    def _complete(self) -> None:
        numbers = list(range(1, len(self._sizes) + 1))
        if sorted(self._stored) != numbers or sum(self._sizes.values()) != self._written:
            # S3 would complete the object without the missing parts.
            raise RuntimeError(f"parts {sorted(self._stored)} of {len(numbers)} were stored")
        parts = [{"PartNumber": number, "ETag": self._stored[number]} for number in numbers]
        self._publish("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})

    def _publish(self, method: str, **params: Any) -> None:
        """Make the call that makes the object visible; Unavailable if another object was stored since entering."""
        try:
            self._wait_for(self._calls.start(method, condition=self._condition or {}, **self._name_object(), **params))
        except Unavailable as error:
            # The response may be lost after S3 applied the request: then the object is stored, by this attempt.
            head = self._load_head()
            if head is not None and self._is_ours(head):
                return
            if isinstance(error, Refused) and error.code in OVERTAKEN:
                raise Unavailable(f"another attempt has written {self._target.name} since this one began") from error
            raise

    def _wait_for(self, call: Future[dict[str, Any]]) -> dict[str, Any]:
        """Wait for a call; once interrupted, only for a short time, because S3 may still apply the request."""
        while not wait([call], timeout=_POLL_SECONDS).done:
            if self._interrupted.is_set() and not wait([call], timeout=_GRACE_SECONDS).done:
                call.cancel()
                raise Cancelled("the upload was interrupted")
        return call.result()

    def _load_head(self) -> dict[str, Any] | None:
        return load_if_present(partial(self._wait_for, self._calls.start("head_object", **self._name_object())))

    def _is_ours(self, head: dict[str, Any]) -> bool:
        return bool(head["ContentLength"] == self._written and load_attempt(head) == self._target.attempt)

    def _verify(self) -> None:
        head = self._load_head()
        if head is None:
            raise Unavailable(f"S3 reported {self._target.name} as stored but has no such object")
        if not self._is_ours(head):
            raise Unavailable(f"S3 has another object ({head['ContentLength']} bytes) than the one written")

    def __enter__(self) -> Self:
        head = self._load_head()
        self._condition = {"IfNoneMatch": "*"} if head is None else {"IfMatch": head["ETag"]}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
