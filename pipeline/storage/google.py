"""Stores files in a bucket of Google Cloud Storage, through its JSON interface."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from config.labels import PartOutcome
from pipeline.storage.calls import CHECK_RETRIES, Calls
from pipeline.storage.google_client import ENDPOINT, MISSING, OVERTAKEN, Client, Description, translate
from pipeline.storage.google_credentials import sign_url
from pipeline.storage.google_upload import GoogleUpload, Target, load_attempt, load_if_present
from pipeline.storage.options import GoogleOptions
from pipeline.storage.s3_parts import first_part_size
from pipeline.storage.safe_names import OBJECT_NAME_BYTES, check_length, join_key, make_disposition
from pipeline.storage.types import MAX_LIFETIME, Refused

_BUCKET = re.compile(r"[\w.-]+")
_UNIT = 256 << 10
_NEVER_MET = 1
_BODY = b"waybill doctor\n"
_TYPE = "text/plain"
_IGNORED = (
    "the store ignores the condition of a write: "
    "a worker that was stopped for longer than its lease could replace a newer file"
)


class GoogleStorage:
    """Objects of one bucket, under a root that may be empty; implements Storage.

    Uploads that were never completed can't be listed. They take no storage, and end by themselves after a week.
    """

    def __init__(self, bucket: str, root: str, options: GoogleOptions, on_part: Callable[[PartOutcome], None]) -> None:
        """Open nothing yet; raises ValueError for a wrong name, and for options that can't be right."""
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("WAYBILL_STORAGE_URL: must be gs://bucket, and a folder may follow")
        self._root = root
        self._options = options
        self._on_part = on_part
        self._client = Client(bucket, options)
        self._calls = Calls("Google Cloud Storage", translate, options.parts.pauses)
        self._signs = False

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> GoogleUpload:
        """Open an object; nothing is sent before the first chunk is full."""
        parts = self._options.parts
        size = first_part_size(parts.size, expected) // _UNIT * _UNIT
        target = Target(self._describe(key, content_type), attempt, size, parts.part_pauses)
        return GoogleUpload(self._calls, self._client, target, self._on_part)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Sign a download with the key of the service account, or let Google sign it."""
        if not timedelta() < lifetime <= MAX_LIFETIME:
            raise ValueError(f"a link lives for up to {MAX_LIFETIME}, not {lifetime}")
        endpoint = self._options.external_endpoint or self._options.endpoint or ENDPOINT
        url = f"{endpoint}/{quote(self._client.bucket)}/{quote(self._locate(key), safe='/~')}"
        parameters = {
            "response-content-disposition": make_disposition(filename),
            "response-content-type": content_type,
        }
        return self._calls.run(
            "sign", lambda: sign_url(url, self._client.identity, lifetime, datetime.now(UTC), parameters)
        )

    def size(self, key: str) -> int | None:
        """Return the size from the object's properties."""
        head = self._load_head(self._locate(key))
        return None if head is None else int(head["size"])

    def delete(self, key: str, attempt: int) -> None:
        """Delete the object, but not one that replaced it since its properties were read."""
        name = self._locate(key)
        head = self._load_head(name)
        if head is None or load_attempt(head) > attempt:
            return
        try:
            self._calls.run("delete", lambda: self._client.remove(name, int(head["generation"])))
        except Refused as refused:
            if refused.code not in OVERTAKEN | MISSING:
                raise

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:  # noqa: ARG002 (there is nothing to abort)
        """Abort nothing."""
        return 0

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:  # noqa: ARG002 (they can't be listed)
        """Return nothing."""
        return set()

    def check(self, prefix: str) -> None:
        """Write with a condition that is not met: this needs write permission, and leaves nothing behind.

        The first check also signs a link, because credentials without a private key may not be allowed to.
        """
        self._keeps_conditions(f"{prefix}.waybill-check", self._calls.limit_retries(CHECK_RETRIES))
        if not self._signs:
            self.sign(f"{prefix}.waybill-check", timedelta(hours=1), "check", _TYPE)
            self._signs = True

    def find_weaknesses(self, key: str) -> list[str]:
        """Store an object, and try to replace it with a condition that is not met."""
        with self.open(key, _TYPE, 0) as upload:
            upload.write(_BODY)
            upload.finish()
        return [] if self._keeps_conditions(key, self._calls) else [_IGNORED]

    def _keeps_conditions(self, key: str, calls: Calls) -> bool:
        description = Description(self._locate(key), _TYPE, make_disposition(key), generation=_NEVER_MET)
        try:
            calls.run("put", lambda: self._client.put(description, _BODY))
        except Refused as refused:
            if refused.code in OVERTAKEN:
                return True
            raise
        self.delete(key, 0)
        return False

    def _load_head(self, name: str) -> Mapping[str, Any] | None:
        return load_if_present(lambda: self._calls.run("get", lambda: self._client.load(name)))

    def _describe(self, key: str, content_type: str) -> Description:
        return Description(self._locate(key), content_type, make_disposition(key))

    def _locate(self, key: str) -> str:
        name = join_key(self._root, key)
        check_length(name, OBJECT_NAME_BYTES)
        return name
