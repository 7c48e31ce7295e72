"""Stores files in a container of Azure Blob Storage, through Azure's own client."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobSasPermissions, ContentSettings, UserDelegationKey, generate_blob_sas

from config.labels import PartOutcome
from pipeline.storage.azure_blocks import discard_blocks, find_uncommitted, load_attempt, load_head
from pipeline.storage.azure_calls import MISSING, OVERTAKEN, find_endpoint, open_client, translate
from pipeline.storage.azure_upload import AzureUpload, Target
from pipeline.storage.calls import CHECK_RETRIES, Calls
from pipeline.storage.options import AzureOptions
from pipeline.storage.s3_parts import first_part_size
from pipeline.storage.safe_names import OBJECT_NAME_BYTES, check_length, join_key, make_disposition
from pipeline.storage.types import MAX_LIFETIME, Refused

_HOST = re.compile(r"[\w-]+(\.[\w-]+)+(:\d{1,5})?")
_NEVER_MET = '"0x0000000000000000"'
_BODY = b"waybill doctor\n"
_CLOCK_SKEW = timedelta(minutes=5)
_SHARED = timedelta(days=1)
_IGNORED = (
    "the store ignores the condition of a write: "
    "a worker that was stopped for longer than its lease could replace a newer file"
)


def open_container(
    place: str, root: str, options: AzureOptions, on_part: Callable[[PartOutcome], None]
) -> "AzureStorage":
    """Open the container that a URL names: `container`, or `container@account.dfs.core.windows.net`.

    Raises ValueError, without a part of the URL in its text, for another URL.
    """
    container, at, host = place.partition("@")
    if not container or (at and not _HOST.fullmatch(host)):
        raise ValueError(
            "WAYBILL_STORAGE_URL: must be abfs://container or abfs://container@account.dfs.core.windows.net, and a "
            "folder may follow"
        )
    if host:
        account, _, domain = host.partition(".")
        endpoint = options.endpoint or f"https://{account}.{domain.replace('dfs.', 'blob.', 1)}"
        options = replace(options, account=options.account or account, endpoint=endpoint)
    return AzureStorage(container, root, options, on_part)


class AzureStorage:
    """Blobs of one container, under a root that may be empty; implements Storage."""

    def __init__(
        self, container: str, root: str, options: AzureOptions, on_part: Callable[[PartOutcome], None]
    ) -> None:
        self._root = root
        self._options = options
        self._on_part = on_part
        self._client = open_client(options)
        self._container = self._client.get_container_client(container)
        self._calls = Calls("Azure", translate, options.parts.pauses)
        self._checked = False
        self._delegation: UserDelegationKey | None = None

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> AzureUpload:
        """Open a blob; nothing is sent before the first block is full."""
        parts = self._options.parts
        target = Target(
            self._locate(key),
            attempt,
            ContentSettings(content_type=content_type, content_disposition=make_disposition(key)),
            first_part_size(parts.size, expected),
            parts.in_flight,
            parts.in_flight * parts.size,
            parts.part_pauses,
        )
        return AzureUpload(self._calls, target, self._on_part)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Sign a download with the account's key, or with a key that Azure gives to the identity of the process."""
        if not timedelta() < lifetime <= MAX_LIFETIME:
            raise ValueError(f"a link lives for up to {MAX_LIFETIME}, not {lifetime}")
        blob, now = self._locate(key), datetime.now(UTC)
        end = now + lifetime
        account_key = self._options.key
        signature = generate_blob_sas(
            self._client.account_name or "",
            blob.container_name,
            blob.blob_name,
            account_key=account_key,
            user_delegation_key=None if account_key is not None else self._load_delegation(now, end),
            permission=BlobSasPermissions(read=True),
            expiry=end,
            content_disposition=make_disposition(filename),
            content_type=content_type,
        )
        endpoint = self._options.external_endpoint or find_endpoint(self._options)
        return f"{endpoint}/{blob.container_name}/{quote(blob.blob_name)}?{signature}"

    def _load_delegation(self, now: datetime, end: datetime) -> UserDelegationKey:
        """Return a key that is valid until `end`, at most a week; one for short links is used again for a day."""
        known = self._delegation
        if known is None or datetime.fromisoformat(str(known.signed_expiry)) < end:
            begin = now - _CLOCK_SKEW
            until = min(max(end, now + _SHARED), begin + MAX_LIFETIME)
            known = self._calls.run(
                "get_user_delegation_key", lambda: self._client.get_user_delegation_key(begin, until)
            )
            self._delegation = known
        return known

    def size(self, key: str) -> int | None:
        """Return the size from the blob's properties."""
        head = load_head(self._calls, self._locate(key))
        return None if head is None else int(head.size)

    def delete(self, key: str, attempt: int) -> None:
        """Delete the blob, but not one that replaced it since its properties were read."""
        blob = self._locate(key)
        head = load_head(self._calls, blob)
        if head is None or load_attempt(head) > attempt:
            return
        try:
            self._calls.run(
                "delete_blob", lambda: blob.delete_blob(etag=head.etag, match_condition=MatchConditions.IfNotModified)
            )
        except Refused as refused:
            if refused.code not in OVERTAKEN | MISSING:
                raise

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Discard uncommitted blocks, which Azure stores and bills for another week."""
        return sum(
            discard_blocks(self._calls, self._container.get_blob_client(name), {})
            for name in self._list_open(prefix, older_than)
        )

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys of the blobs that have only uncommitted blocks."""
        start = len(self._root) + 1 if self._root else 0
        return {name[start:] for name in self._list_open(prefix, older_than)}

    def _list_open(self, prefix: str, older_than: datetime) -> list[str]:
        start = f"{self._root}/{prefix}" if self._root else prefix
        found = find_uncommitted(self._calls, self._container, start)
        return [name for name, began in found if began < older_than]

    def check(self, prefix: str) -> None:
        """Write with a condition that is not met: this needs write permission, and leaves nothing behind.

        The first check also signs a link, because a process without a key may not be allowed to, and creates the
        container if the options say so.
        """
        if not self._checked and self._options.create_container:
            self._create_container()
        self._keeps_conditions(f"{prefix}.waybill-check", self._calls.limit_retries(CHECK_RETRIES))
        if not self._checked:
            self.sign(f"{prefix}.waybill-check", timedelta(hours=1), "check", "text/plain")
            self._checked = True

    def find_weaknesses(self, key: str) -> list[str]:
        """Store a blob, and try to replace it with a condition that is not met."""
        with self.open(key, "text/plain", 0) as upload:
            upload.write(_BODY)
            upload.finish()
        return [] if self._keeps_conditions(key, self._calls) else [_IGNORED]

    def _keeps_conditions(self, key: str, calls: Calls) -> bool:
        blob = self._locate(key)
        try:
            calls.run(
                "put_blob",
                lambda: blob.upload_blob(
                    _BODY, overwrite=True, etag=_NEVER_MET, match_condition=MatchConditions.IfNotModified
                ),
            )
        except Refused as refused:
            if refused.code in OVERTAKEN:
                return True
            raise
        self.delete(key, 0)
        return False

    def _create_container(self) -> None:
        try:
            self._calls.run("create_container", self._container.create_container)
        except Refused as refused:
            if refused.code != "ContainerAlreadyExists":
                raise

    def _locate(self, key: str) -> BlobClient:
        name = join_key(self._root, key)
        check_length(name, OBJECT_NAME_BYTES)
        return self._container.get_blob_client(name)
