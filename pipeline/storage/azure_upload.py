"""Uploads one blob to Azure in blocks, several in flight, and commits them only when every block is stored."""

# Written by hand on the calls of Azure's client: its own uploader, which adlfs uses too, needs the whole file, and the
# handle of adlfs commits without a condition, and also when it is closed after an error. A small file is a block, too,
# because the emulator refuses a blob in one request while another upload has uncommitted blocks.

import io
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContentSettings

from config.errors import Cancelled, Unavailable
from config.labels import PartOutcome
from pipeline.storage.azure_blocks import (
    ATTEMPT,
    discard_blocks,
    load_attempt,
    load_if_present,
    load_uncommitted,
    make_upload_id,
)
from pipeline.storage.azure_calls import LOST_BLOCKS, OVERTAKEN
from pipeline.storage.calls import GRACE_SECONDS, POLL_SECONDS, Calls, PartBuffer, wait_for
from pipeline.storage.types import Refused

logger = logging.getLogger(__name__)

MAX_BLOCKS = 50_000


@dataclass(frozen=True)
class Target:
    """Where an upload goes and how: blocks of `block_size` bytes, the last one smaller.

    At most `blocks_in_flight` blocks of `bytes_in_flight` bytes together are sent at the same time, but always one.
    `pauses` are the seconds before each retry of a block.
    """

    blob: BlobClient
    attempt: int
    settings: ContentSettings
    block_size: int
    blocks_in_flight: int
    bytes_in_flight: int
    pauses: tuple[float, ...]


class AzureUpload:
    """The upload of one blob, also in blocks if it is small; implements Upload."""

    def __init__(self, calls: Calls, target: Target, on_part: Callable[[PartOutcome], None]) -> None:
        self._calls = calls
        self._target = target
        self._blob = target.blob
        self._on_part = on_part
        self._id = make_upload_id(datetime.now(UTC))
        self._entered = False
        self._ended = False
        self._interrupted = threading.Event()
        self._seen: str | None = None
        self._published: str | None = None
        self._buffer = PartBuffer(target.block_size)
        self._blocks: list[str] = []
        self._in_flight: dict[Future[Any], str] = {}
        self._stored: set[str] = set()

    def write(self, data: bytes | memoryview) -> None:
        """Fill blocks, and send each full one."""
        view = memoryview(data)
        while view:
            self._check_state()
            view = self._buffer.fill(view)
            if self._buffer.is_full:
                self._send()

    def finish(self) -> int:
        """Send the rest, commit the blocks, and compare the blob's size with the bytes written."""
        self._check_state()
        if self._buffer.held:
            self._send()
        while self._in_flight:
            self._collect()
        self._commit()
        self._verify()
        self._ended = True
        return self._buffer.taken

    def abort(self) -> None:
        """Discard the blocks once none is in flight, because a later one would be stored again."""
        if self._ended:
            return
        self._ended = True
        # The server stores a block that it has received, whether or not the client waits for the response.
        wait(self._in_flight, timeout=GRACE_SECONDS)
        for future in self._in_flight:
            future.cancel()
        if not self._blocks:
            return
        try:
            self._discard()
        except Unavailable:
            # The cleanup does it later.
            logger.warning("could not discard an upload", extra={"key": self._blob.blob_name}, exc_info=True)

    def interrupt(self) -> None:
        """Make blocked and later calls raise Cancelled."""
        self._interrupted.set()

    def _discard(self) -> None:
        """Discard the blocks, unless another upload has some, which would be lost with them."""
        ids = load_uncommitted(self._calls, self._blob)
        if ids and all(map(self._id.owns, ids)):
            discard_blocks(self._calls, self._blob, self._metadata)

    @property
    def _metadata(self) -> dict[str, str]:
        return {ATTEMPT: str(self._target.attempt)}

    def _check_state(self) -> None:
        if self._ended or not self._entered:
            raise ValueError("the upload has ended, or was not entered")
        if self._interrupted.is_set():
            raise Cancelled("the upload was interrupted")

    def _make_condition(self) -> dict[str, Any]:
        if self._seen is None:
            return {"match_condition": MatchConditions.IfMissing}
        return {"match_condition": MatchConditions.IfNotModified, "etag": self._seen}

    def _send(self) -> None:
        """Send the held bytes as a block, once fewer blocks are in flight; they are copied only then."""
        if len(self._blocks) >= MAX_BLOCKS:
            raise Unavailable(
                f"the file needs more than {MAX_BLOCKS:,} blocks; the next attempt uses larger ones "
                "(BATCH_EXPORT_S3_PART_SIZE_MIB is the size of the first attempt's)"
            )
        most_in_flight = max(1, self._target.bytes_in_flight // self._buffer.held)
        while len(self._in_flight) >= min(most_in_flight, self._target.blocks_in_flight):
            self._collect()
        body, block = self._buffer.take(), self._id.name_block(len(self._blocks) + 1)
        future = self._calls.start(
            "put_block",
            # A file is sent in pieces; the client's timeout would limit how long all bytes of an object take.
            lambda: self._blob.stage_block(block, io.BytesIO(body), length=len(body)),
            on_retry=lambda: self._on_part("retried"),
            pauses=self._target.pauses,
        )
        self._in_flight[future] = block
        self._blocks.append(block)

    def _collect(self) -> None:
        """Wait until a block is stored; if it fails, the upload fails."""
        done, _ = wait(self._in_flight, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        self._check_state()
        for future in done:
            block = self._in_flight.pop(future)
            try:
                future.result()
            except Refused as refused:
                self._on_part("failed")
                raise self._explain(refused) from refused
            except (Unavailable, CancelledError):
                self._on_part("failed")
                raise
            self._stored.add(block)
            self._on_part("stored")

    def _commit(self) -> None:
        if self._stored != set(self._blocks):
            raise RuntimeError(f"{len(self._stored)} of {len(self._blocks)} blocks were stored")
        blocks = [BlobBlock(block_id=each) for each in self._blocks]
        self._publish(
            lambda: self._blob.commit_block_list(
                blocks, content_settings=self._target.settings, metadata=self._metadata, **self._make_condition()
            )
        )

    def _publish(self, commit: Callable[[], Mapping[str, Any]]) -> None:
        """Make the call that makes the blob visible; Unavailable if another blob was stored since entering."""
        try:
            self._published = self._wait_for(self._calls.start("put_block_list", commit)).get("etag")
        except Unavailable as error:
            # The response may be lost after Azure applied the request: then the blob is stored, by this attempt.
            head = self._load_head()
            if head is not None and self._is_ours(head):
                return
            raise (self._explain(error) if isinstance(error, Refused) else error) from error

    def _explain(self, refused: Refused) -> Unavailable:
        """Return what a refusal means: another upload of the blob may have discarded the blocks of this one."""
        if refused.code in OVERTAKEN or (refused.code in LOST_BLOCKS and self._is_overtaken()):
            return Unavailable(f"another attempt has written {self._blob.blob_name} since this one began")
        return refused

    def _is_overtaken(self) -> bool:
        with suppress(Unavailable):
            head = self._load_head()
            return (None if head is None else head.etag) != self._seen
        return False

    def _wait_for(self, call: Future[Any]) -> Any:
        return wait_for(call, self._interrupted)

    def _load_head(self) -> BlobProperties | None:
        properties = self._calls.start("get_blob_properties", self._blob.get_blob_properties)
        return load_if_present(lambda: self._wait_for(properties))

    def _is_ours(self, head: BlobProperties) -> bool:
        known = load_attempt(head) == self._target.attempt or head.etag == self._published
        return bool(head.size == self._buffer.taken and known)

    def _verify(self) -> None:
        head = self._load_head()
        if head is None:
            raise Unavailable(f"Azure reported {self._blob.blob_name} as stored but has no such blob")
        if not self._is_ours(head):
            raise Unavailable(f"Azure has another blob ({head.size} bytes) than the one written")

    def __enter__(self) -> Self:
        head = self._load_head()
        self._seen = None if head is None else head.etag
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
