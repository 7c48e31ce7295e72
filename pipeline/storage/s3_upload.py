"""Uploads one object to S3 in parts, several in flight, and completes it only when every part is accounted for."""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pipeline.errors import Cancelled, Unavailable
from pipeline.storage.s3_calls import Calls, Refused

logger = logging.getLogger(__name__)

MAX_PARTS = 10_000
_EVEN_PARTS = 1_000
_GROWTH = 160 << 10
_LOOK_UP = 0.25
_LANDING = 5.0
_ATTEMPT = "waybill-attempt"
_GONE = {"404", "NoSuchUpload"}


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

    def __init__(self, calls: Calls, target: Target, on_part: Callable[[str], None]) -> None:
        self._calls = calls
        self._target = target
        self._on_part = on_part
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
        if self._target.attempt > 1:
            self._abort_rivals()
        if self._upload_id is None:
            self._calls.run("put_object", Body=self._take(), **self._key(), **self._headers())
            self._on_part("stored")
        else:
            if self._held:
                self._send()
            while self._in_flight:
                self._collect()
            self._complete()
        self._ended = True
        self._verify()
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
        if self._ended:
            raise ValueError("the upload has ended")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _key(self) -> dict[str, str]:
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
            begun = self._calls.run("create_multipart_upload", **self._key(), **self._headers())
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
        try:
            self._calls.run(
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
                **self._key(),
            )
        except Unavailable:
            # An answer can be lost after the deed: then the object is there, and is this attempt's.
            if not self._is_there():
                raise

    def _is_there(self) -> bool:
        try:
            return self._is_ours(self._calls.run("head_object", **self._key()))
        except Refused:
            return False

    def _is_ours(self, head: dict[str, Any]) -> bool:
        written_by = head.get("Metadata", {}).get(_ATTEMPT)
        return bool(head["ContentLength"] == self._written and written_by == str(self._target.attempt))

    def _verify(self) -> None:
        head = self._calls.run("head_object", **self._key())
        if not self._is_ours(head):
            raise Unavailable(f"S3 holds another object ({head['ContentLength']} bytes) than was written")

    def _abort_rivals(self) -> None:
        """Abort what earlier attempts left open: one that only slept could complete its upload over ours."""
        page = self._calls.run("list_multipart_uploads", Bucket=self._target.bucket, Prefix=self._target.name)
        for rival in page.get("Uploads", []):
            if rival["Key"] == self._target.name and rival["UploadId"] != self._upload_id:
                abort_upload(self._calls, self._target.bucket, rival)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
