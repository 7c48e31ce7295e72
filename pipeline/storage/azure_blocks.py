"""Names the blocks of uploads to Azure, finds those that were never committed, and discards them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

from pipeline.storage.azure_calls import MISSING, OVERTAKEN
from pipeline.storage.calls import Calls
from pipeline.storage.types import Refused

ATTEMPT = "waybill_attempt"
"""The name of the metadata that contains the attempt: Azure allows no hyphen in it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS_OF_ID = 3


@dataclass(frozen=True)
class UploadId:
    """Marks the blocks of one upload, because all uploads to one blob share its uncommitted blocks."""

    text: str

    def name_block(self, number: int) -> str:
        """Return the id of a block; within a blob, all ids must have the same length."""
        return f"{self.text}.{number:05d}"

    def owns(self, block_id: str) -> bool:
        """Return whether a block belongs to this upload."""
        return block_id.startswith(f"{self.text}.")


def make_upload_id(started: datetime) -> UploadId:
    """Return a new id; it contains the time in milliseconds, because Azure lists uncommitted blobs without one."""
    return UploadId(f"{(started - _EPOCH) // timedelta(milliseconds=1):015d}.{secrets.token_hex(8)}")


def find_uncommitted(calls: Calls, container: ContainerClient, prefix: str) -> Iterator[tuple[str, datetime]]:
    """Yield the name of each blob under `prefix` that has only uncommitted blocks, and when its last upload began.

    Azure lists them only together with all other blobs.
    """
    found = calls.run("list_blobs", lambda: list(_list_empty(container, prefix)))
    for name in found:
        ids = load_uncommitted(calls, container.get_blob_client(name))
        started = [when for each in ids if (when := _read_start(each)) is not None]
        if ids and started:
            yield name, max(started)


def load_uncommitted(calls: Calls, blob: BlobClient) -> list[str]:
    """Return the ids of the blocks of a blob that was never committed; none if it was, or if it does not exist."""
    try:
        committed, uncommitted = calls.run("get_block_list", lambda: blob.get_block_list("all"))
    except Refused as refused:
        if refused.code in MISSING:
            return []
        raise
    return [] if committed or load_head(calls, blob) is not None else [str(each.id) for each in uncommitted]


def discard_blocks(calls: Calls, blob: BlobClient, metadata: dict[str, str]) -> bool:
    """Discard the uncommitted blocks of a blob; False if it has been committed since.

    Azure discards blocks when a list without them is committed, and a week after the last one was sent. So the blob
    exists for a moment, empty and with `metadata`; nothing is committed over another blob.
    """
    try:
        put = calls.run(
            "commit_block_list",
            lambda: blob.commit_block_list([], match_condition=MatchConditions.IfMissing, metadata=metadata),
        )
        calls.run(
            "delete_blob",
            lambda: blob.delete_blob(etag=str(put["etag"]), match_condition=MatchConditions.IfNotModified),
        )
    except Refused as refused:
        if refused.code in OVERTAKEN | MISSING:
            return False
        raise
    return True


def load_head(calls: Calls, blob: BlobClient) -> BlobProperties | None:
    """Return the properties of a blob, or None if it does not exist or was never committed."""
    return load_if_present(lambda: calls.run("get_blob_properties", blob.get_blob_properties))


def load_if_present(load: Any) -> BlobProperties | None:
    """Return the properties from a call, or None if the blob does not exist."""
    try:
        found: BlobProperties = load()
    except Refused as refused:
        if refused.code in MISSING:
            return None
        raise
    return found


def load_attempt(head: BlobProperties) -> int:
    """Return the attempt that wrote a blob, 0 if its properties do not contain it."""
    attempt = (head.metadata or {}).get(ATTEMPT, "")
    return int(attempt) if attempt.isdecimal() else 0


def _list_empty(container: ContainerClient, prefix: str) -> Iterator[str]:
    for blob in container.list_blobs(name_starts_with=prefix, include=["uncommittedblobs"]):
        if not blob.size:
            yield blob.name


def _read_start(block_id: str) -> datetime | None:
    start, *rest = block_id.split(".")
    if len(rest) != _PARTS_OF_ID - 1 or not start.isdecimal():
        return None
    return _EPOCH + timedelta(milliseconds=int(start))
