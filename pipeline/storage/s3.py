"""Stores files in S3 and compatible stores, through s3fs."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from s3fs import S3FileSystem

from config.errors import Unavailable
from config.labels import PartOutcome
from pipeline.storage.calls import find_authorities
from pipeline.storage.options import S3Options
from pipeline.storage.s3_calls import Calls
from pipeline.storage.s3_conditions import FAILED_CONDITIONS, OVERTAKEN, REFUSED_CONDITIONS, Conditions
from pipeline.storage.s3_objects import abort_upload, load_attempt, load_head, read_version
from pipeline.storage.s3_parts import first_part_size
from pipeline.storage.s3_probe import check_writing, find_limits, probe_conditions
from pipeline.storage.s3_upload import S3Upload, Target
from pipeline.storage.safe_names import OBJECT_NAME_BYTES, check_length, join_key, make_disposition
from pipeline.storage.types import MAX_LIFETIME, Refused

logger = logging.getLogger(__name__)

CHECK_RETRIES = 2
FIXED_SESSION = (
    "the credentials are those of a session (AWS_SESSION_TOKEN), which nothing here renews: exports fail and links end "
    "when it ends. Use access keys or a role, or set AWS_CREDENTIAL_EXPIRATION to the time at which the session ends"
)
_PROBE, _PROBE_TYPE = b"waybill doctor\n", "text/plain"


class S3Storage:
    """Objects of one bucket, under a root that may be empty; implements Storage."""

    def __init__(self, bucket: str, root: str, options: S3Options, on_part: Callable[[PartOutcome], None]) -> None:
        self._bucket = bucket
        self._root = root
        self._options = options
        self._on_part = on_part
        self._calls = _open_calls(options, options.endpoint)
        self._conditions = Conditions()
        self._probed = False
        self._signer: Calls | None = None

    def open(self, key: str, content_type: str, attempt: int, expected: int = 0) -> S3Upload:
        """Open an object; nothing is sent before the first part is full."""
        return self._open(key, content_type, attempt, first_part_size(self._options.part_size, expected))

    def _open(self, key: str, content_type: str, attempt: int, part_size: int) -> S3Upload:
        name = join_key(self._root, key)
        check_length(name, OBJECT_NAME_BYTES)
        headers = {
            "ContentType": content_type,
            "ContentDisposition": make_disposition(key),
            **_make_encryption(self._options),
        }
        options = self._options
        target = Target(
            self._bucket,
            name,
            attempt,
            headers,
            part_size,
            options.parts_in_flight,
            options.parts_in_flight * options.part_size,
            options.part_pauses,
        )
        return S3Upload(self._calls, self._conditions, target, self._on_part)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Sign a download with the external endpoint; lives no longer than the credentials that sign it."""
        if not timedelta() < lifetime <= MAX_LIFETIME:
            raise ValueError(f"a link lives for up to {MAX_LIFETIME}, not {lifetime}")
        params = {
            "Bucket": self._bucket,
            "Key": join_key(self._root, key),
            "ResponseContentDisposition": make_disposition(filename),
            "ResponseContentType": content_type,
        }
        return self._find_signer().presign(params, int(lifetime.total_seconds()))

    def _find_signer(self) -> Calls:
        """Return the calls that sign links, in the region of the bucket."""
        if self._signer is None:
            try:
                region = self._calls.limit_retries(CHECK_RETRIES).find_region(self._bucket)
                self._signer = self._open_signer(replace(self._options, region=region))
            except Unavailable:
                # A link for the default region may work, and an export that is stored does not fail for its link.
                return self._open_signer(self._options)
        return self._signer

    def _open_signer(self, options: S3Options) -> Calls:
        return _open_calls(options, options.external_endpoint or options.endpoint)

    def size(self, key: str) -> int | None:
        """Return the size from the object's head."""
        # A user who opens a link waits for it.
        head = load_head(self._calls.limit_retries(CHECK_RETRIES), self._bucket, join_key(self._root, key))
        return None if head is None else int(head["ContentLength"])

    def delete(self, key: str, attempt: int) -> None:
        """Delete the object, but not one that replaced it since its head was read."""
        name = join_key(self._root, key)
        head = load_head(self._calls, self._bucket, name)
        if head is None or load_attempt(head) > attempt:
            return
        condition = self._conditions.choose("delete_object", {"IfMatch": head["ETag"]})
        try:
            self._calls.run("delete_object", Bucket=self._bucket, Key=name, **condition)
        except Refused as refused:
            unchanged = read_version(load_head(self._calls, self._bucket, name)) == head["ETag"]
            if condition and unchanged and refused.code in REFUSED_CONDITIONS | FAILED_CONDITIONS:
                self._calls.run("delete_object", Bucket=self._bucket, Key=name)
                self._conditions.refuse("delete_object")
            elif refused.code not in OVERTAKEN:
                raise

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Abort multipart uploads, because parts that are never completed stay stored and billed."""
        return sum(abort_upload(self._calls, self._bucket, each) for each in self._list_open(prefix, older_than))

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Return the keys of open multipart uploads."""
        start = len(self._root) + 1 if self._root else 0
        return {each["Key"][start:] for each in self._list_open(prefix, older_than)}

    def _list_open(self, prefix: str, older_than: datetime) -> Iterator[dict[str, Any]]:
        start = f"{self._root}/{prefix}" if self._root else prefix
        marker: dict[str, str] = {}
        while True:
            page = self._calls.run("list_multipart_uploads", Bucket=self._bucket, Prefix=start, **marker)
            yield from (upload for upload in page.get("Uploads", []) if upload["Initiated"] < older_than)
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def check(self, prefix: str) -> None:
        """Begin a multipart upload and abort it: this needs write permission, and leaves nothing behind.

        The first check also finds the region, and whether the store keeps the conditions of writes.
        """
        place, headers = self._locate(f"{prefix}.waybill-check"), _make_encryption(self._options)
        # The next check is the next try: the reason must be known before a daemon stops waiting for it.
        check_writing(self._calls.limit_retries(CHECK_RETRIES), place, headers)
        if not self._probed:
            probe_conditions(self._calls, self._conditions, place, headers)
            self._find_signer()
            if self._calls.have_fixed_session():
                logger.warning("%s", FIXED_SESSION)
            self._probed = True

    def find_weaknesses(self, key: str) -> list[str]:
        """Store an object in parts, and try to replace it with a condition that is not met."""
        # Another attempt than the one that stored the object, so that the upload knows it from its own.
        with self._open(key, _PROBE_TYPE, 0, len(_PROBE)) as upload:
            upload.write(_PROBE)
            upload.finish()
        place = self._locate(key)
        found = find_limits(self._calls, place)
        probe_conditions(self._calls, self._conditions, place, _make_encryption(self._options))
        session = [FIXED_SESSION] if self._calls.have_fixed_session() else []
        return [*self._conditions.weaknesses, *found, *session]

    def _locate(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": join_key(self._root, key)}


def _open_calls(options: S3Options, endpoint: str | None) -> Calls:
    return Calls(_make_filesystem(options, endpoint), options.pauses)


def _make_filesystem(options: S3Options, endpoint: str | None) -> S3FileSystem:
    authorities = find_authorities()
    return S3FileSystem(
        key=options.access_key_id,
        secret=options.secret_access_key,
        endpoint_url=endpoint,
        client_kwargs={
            **({"region_name": options.region} if options.region else {}),
            **({"verify": authorities} if authorities else {}),
        },
        config_kwargs={
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path" if options.force_path_style else "virtual"},
            # Compatible stores do not know the checksums that AWS clients send by default.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 10,
            "read_timeout": 60,
            "max_pool_connections": 64,
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _make_encryption(options: S3Options) -> dict[str, Any]:
    if options.sse is None:
        return {}
    kms = {"SSEKMSKeyId": options.sse_kms_key_id} if options.sse == "aws:kms" and options.sse_kms_key_id else {}
    return {"ServerSideEncryption": options.sse, **kms}
