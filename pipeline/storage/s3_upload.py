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
from pipeline.storage.s3_body import Body
from pipeline.storage.s3_calls import Calls
from pipeline.storage.s3_conditions import FAILED_CONDITIONS, OVERTAKEN, REFUSED_CONDITIONS, Conditions
from pipeline.storage.s3_objects import ATTEMPT, MISSING, abort_upload, load_attempt, load_if_present, read_version
from pipeline.storage.s3_parts import MAX_PARTS, part_size
from pipeline.storage.types import Refused

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Target:
    """Where an upload goes and how: `headers` of the object, `part_size` (bytes) of its first parts.

    At most `parts_in_flight` parts of `bytes_in_flight` bytes together are sent at the same time, but always one.
    `part_pauses` are the seconds before each retry of a part.
    """

    bucket: str
    name: str
    attempt: int
    headers: dict[str, Any]
    part_size: int
    parts_in_flight: int
    bytes_in_flight: int
    part_pauses: tuple[float, ...]


class S3Upload:
    """The upload of one object, in a single request if it is smaller than a part; implements Upload."""

    def __init__(
        self, calls: Calls, conditions: Conditions, target: Target, on_part: Callable[[PartOutcome], None]
    ) -> None:
        self._calls = calls
        self._conditions = conditions
        self._target = target
        self._on_part = on_part
        self._entered = False
        self._seen: str | None = None
        self._published: str | None = None
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
        if self._ended or not self._entered:
            raise ValueError("the upload has ended, or was not entered")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _name_object(self) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": self._target.name}

    def _make_headers(self) -> dict[str, Any]:
        return {**self._target.headers, "Metadata": {ATTEMPT: str(self._target.attempt)}}

    def _take(self) -> Body:
        body = Body(self._filling)
        self._filling.clear()
        self._written += self._held
        self._held = 0
        return body

    def _send(self) -> None:
        """Send the held bytes as a part, once fewer parts are in flight."""
        if self._upload_id is None:
            begun = self._wait_for(
                self._calls.start("create_multipart_upload", **self._name_object(), **self._make_headers())
            )
            self._upload_id = begun["UploadId"]
        number = len(self._sizes) + 1
        if number > MAX_PARTS:
            raise Unavailable(
                f"the file needs more than {MAX_PARTS:,} parts; the next attempt uses larger ones "
                "(BATCH_EXPORT_S3_PART_SIZE_MIB is the size of the first attempt's)"
            )
        # The large parts of very large files are sent one by one, because parts in flight take memory.
        most_in_flight = max(1, self._target.bytes_in_flight // self._held)
        most_in_flight = min(most_in_flight, self._target.parts_in_flight)
        while len(self._in_flight) >= most_in_flight:
            self._collect()
        body = self._take()
        future = self._calls.start(
            "upload_part",
            on_retry=lambda: self._on_part("retried"),
            pauses=self._target.part_pauses,
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
        if not self._conditions.are_kept(method):
            self._compare()
        condition = self._conditions.choose(method, self._make_condition())
        try:
            self._apply(method, condition, params)
        except Unavailable as error:
            # The response may be lost after S3 applied the request: then the object is stored, by this attempt.
            head = self._load_head()
            if head is not None and self._is_ours(head):
                return
            if not (condition and isinstance(error, Refused) and self._knows_no_condition(error, head)):
                raise self._explain(error) from error
            self._publish_unconditionally(method, params)

    def _publish_unconditionally(self, method: str, params: Mapping[str, Any]) -> None:
        """Make the call without its condition, and let all later ones go without if it succeeds."""
        self._compare()
        try:
            self._apply(method, {}, params)
        except Unavailable as error:
            raise self._explain(error) from error
        self._conditions.refuse(method)

    def _apply(self, method: str, condition: Mapping[str, str], params: Mapping[str, Any]) -> None:
        given: dict[str, Any] = {**self._name_object(), **params, **condition}
        self._published = self._wait_for(self._calls.start(method, **given)).get("ETag")

    def _make_condition(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._seen is None else {"IfMatch": self._seen}

    def _knows_no_condition(self, refused: Refused, head: dict[str, Any] | None) -> bool:
        """Return whether a call was refused because of its condition, although the condition is met."""
        unchanged = read_version(head) == self._seen
        return unchanged and refused.code in REFUSED_CONDITIONS | FAILED_CONDITIONS

    def _compare(self) -> None:
        """Raise Unavailable if another object was stored since entering, as S3 does with a condition."""
        if read_version(self._load_head()) != self._seen:
            raise self._overtaken()

    def _explain(self, error: Unavailable) -> Unavailable:
        return self._overtaken() if isinstance(error, Refused) and error.code in OVERTAKEN else error

    def _overtaken(self) -> Unavailable:
        return Unavailable(f"another attempt has written {self._target.name} since this one began")

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
        """Return whether a head is of the object that this attempt wrote; some stores drop the metadata."""
        known = load_attempt(head) == self._target.attempt or read_version(head) == self._published
        return bool(head["ContentLength"] == self._written and known)

    def _verify(self) -> None:
        try:
            head = self._wait_for(self._calls.start("head_object", **self._name_object()))
        except Refused as refused:
            if refused.code in MISSING:
                raise Unavailable(f"S3 reported {self._target.name} as stored but has no such object") from refused
            raise
        if not self._is_ours(head):
            raise Unavailable(f"S3 has another object ({head['ContentLength']} bytes) than the one written")

    def __enter__(self) -> Self:
        self._seen = read_version(self._load_head())
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
