"""Uploads one object to S3 in parts, several in flight, and completes it only when every part is accounted for."""

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
_LOOK_UP = 0.25
_LANDING = 5.0
_ATTEMPT = "waybill-attempt"
_GONE = {"404", "NoSuchUpload"}
_MISSING = {"404", "NoSuchKey"}
OVERTAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
"""What S3 says where the object is another than the call was made for."""


@dataclass(frozen=True)
class Target:
    """Where an upload goes and how: `headers` are those of the object, `part_size` (bytes) that of its first parts."""

    bucket: str
    name: str
    attempt: int
    headers: dict[str, Any]
    part_size: int
    parts_in_flight: int


def part_size(number: int, first: int) -> int:
    """Return the size in bytes of a part by its number, from 1.

    The same for a thousand parts, then each larger than the last, so that 10,000 of them hold 5 TB while files of
    usual size need little memory.
    """
    return first + max(0, number - _EVEN_PARTS) * _GROWTH


def look(calls: Calls, bucket: str, name: str) -> dict[str, Any] | None:
    """Return the head of an object, or None where there is none."""
    return found(partial(calls.run, "head_object", Bucket=bucket, Key=name))


def found(head: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the head that a call gives, or None where the object is missing."""
    try:
        return head()
    except Refused as refused:
        if refused.code in _MISSING:
            return None
        raise


def written_by(head: Mapping[str, Any]) -> int:
    """Return the attempt that wrote an object, 0 where its head does not say."""
    attempt = head.get("Metadata", {}).get(_ATTEMPT, "")
    return int(attempt) if attempt.isdecimal() else 0


def abort_upload(calls: Calls, bucket: str, upload: Mapping[str, Any]) -> bool:
    """Abort an upload as S3 lists it; False where it has ended since it was listed."""
    try:
        calls.run("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except Refused as refused:
        if refused.code in _GONE:
            return False
        raise
    return True


class S3Upload:
    """One object on its way to S3, by one request if it is smaller than a part; implements Upload."""

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
        """Fill parts, and send each that is full."""
        view = memoryview(data)
        while view:
            self._go_on()
            size = part_size(len(self._sizes) + 1, self._target.part_size)
            piece, view = view[: size - self._held], view[size - self._held :]
            self._filling.append(piece)
            self._held += len(piece)
            if self._held == size:
                self._send()

    def finish(self) -> int:
        """Send the rest, complete the object, and compare its size with what was written."""
        self._go_on()
        if self._upload_id is None:
            self._settle("put_object", Body=self._take(), **self._headers())
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
        """Abort once no part is in flight: one that lands after the abort would be kept, and billed, for ever."""
        if self._ended:
            return
        self._ended = True
        # The server goes on with a part that it has, whether or not we wait for its answer.
        wait(self._in_flight, timeout=_LANDING)
        for future in self._in_flight:
            future.cancel()
        wait(self._in_flight)
        if self._upload_id is None:
            return
        try:
            abort_upload(self._calls, self._target.bucket, {"Key": self._target.name, "UploadId": self._upload_id})
        except Unavailable:
            # The sweeper aborts it later.
            logger.warning("could not abort an upload", extra={"key": self._target.name}, exc_info=True)

    def interrupt(self) -> None:
        """Make whoever waits look up, and raise Cancelled."""
        self._interrupted.set()

    def _go_on(self) -> None:
        if self._ended or self._condition is None:
            raise ValueError("the upload has ended, or was not entered")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _key(self) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": self._target.name}

    def _headers(self) -> dict[str, Any]:
        return {**self._target.headers, "Metadata": {_ATTEMPT: str(self._target.attempt)}}

    def _take(self) -> bytes:
        body = b"".join(self._filling)
        self._filling.clear()
        self._written += self._held
        self._held = 0
        return body

    def _send(self) -> None:
        """Put what is held in flight as a part, once there is room for it; until then there is no copy of it."""
        if self._upload_id is None:
            begun = self._answer(self._calls.start("create_multipart_upload", **self._key(), **self._headers()))
            self._upload_id = begun["UploadId"]
        number = len(self._sizes) + 1
        # Large parts, of very large files, go one by one: what is in flight is memory.
        at_most = max(1, self._target.parts_in_flight * self._target.part_size // self._held)
        at_most = min(at_most, self._target.parts_in_flight)
        while len(self._in_flight) >= at_most:
            self._collect()
        body = self._take()
        future = self._calls.start(
            "upload_part",
            on_retry=lambda: self._on_part("retried"),
            PartNumber=number,
            UploadId=self._upload_id,
            Body=body,
            **self._key(),
        )
        self._in_flight[future] = number
        self._sizes[number] = len(body)

    def _collect(self) -> None:
        """Wait until a part has landed; its failure is the upload's."""
        done, _ = wait(self._in_flight, timeout=_LOOK_UP, return_when=FIRST_COMPLETED)
        self._go_on()
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
            # S3 would join what there is and call it whole.
            raise RuntimeError(f"parts {sorted(self._stored)} of {len(numbers)} were stored")
        parts = [{"PartNumber": number, "ETag": self._stored[number]} for number in numbers]
        self._settle("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})

    def _settle(self, method: str, **params: Any) -> None:
        """Make the call that makes the object visible, unless another object than on entering is there by now."""
        try:
            self._answer(self._calls.start(method, condition=self._condition or {}, **self._key(), **params))
        except Unavailable as error:
            # An answer can be lost after the deed: then the object is there, and is this attempt's.
            head = self._head()
            if head is not None and self._is_ours(head):
                return
            if isinstance(error, Refused) and error.code in OVERTAKEN:
                raise Unavailable(f"somebody else has written {self._target.name} since this attempt began") from error
            raise

    def _answer(self, call: Future[dict[str, Any]]) -> dict[str, Any]:
        """Wait for a call; once interrupted only as long as it may take to land, for it can't be called back."""
        while not wait([call], timeout=_LOOK_UP).done:
            if self._interrupted.is_set() and not wait([call], timeout=_LANDING).done:
                call.cancel()
                raise Cancelled("the upload was interrupted")
        return call.result()

    def _head(self) -> dict[str, Any] | None:
        return found(partial(self._answer, self._calls.start("head_object", **self._key())))

    def _is_ours(self, head: dict[str, Any]) -> bool:
        return bool(head["ContentLength"] == self._written and written_by(head) == self._target.attempt)

    def _verify(self) -> None:
        head = self._head()
        if head is None:
            raise Unavailable(f"S3 says that {self._target.name} is stored, and has no such object")
        if not self._is_ours(head):
            raise Unavailable(f"S3 holds another object ({head['ContentLength']} bytes) than was written")

    def __enter__(self) -> Self:
        head = self._head()
        self._condition = {"IfNoneMatch": "*"} if head is None else {"IfMatch": head["ETag"]}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
