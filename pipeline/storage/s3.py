"""Stores files in S3 and compatible stores, through s3fs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from s3fs import S3FileSystem

from config.labels import PartOutcome
from pipeline.storage.s3_calls import Calls, Refused
from pipeline.storage.s3_upload import OVERTAKEN, S3Upload, Target, abort_upload, load_attempt, load_head
from pipeline.storage.safe_names import OBJECT_NAME_BYTES, check_length, join_key, make_disposition
from pipeline.storage.types import MAX_LIFETIME


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """How to reach a bucket; None means the environment and the defaults of the AWS client.

    `external_endpoint` is used in links. `part_size` (bytes) is the size of an upload's first parts. `pauses` are the
    seconds, give or take a half, before each retry of a call that failed temporarily.
    """

    endpoint: str | None = None
    external_endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    force_path_style: bool = False
    sse: str | None = None
    sse_kms_key_id: str | None = None
    part_size: int = 10 << 20
    parts_in_flight: int = 2
    pauses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class S3Storage:
    """Objects of one bucket, under a root that may be empty; implements Storage."""

    def __init__(self, bucket: str, root: str, options: S3Options, on_part: Callable[[PartOutcome], None]) -> None:
        self._bucket = bucket
        self._root = root
        self._options = options
        self._on_part = on_part
        self._calls = Calls(_make_filesystem(options, options.endpoint), options.pauses)
        self._outside = Calls(_make_filesystem(options, options.external_endpoint or options.endpoint), options.pauses)

    def open(self, key: str, content_type: str, attempt: int) -> S3Upload:
        """Open an object; nothing is sent before the first part is full."""
        name = join_key(self._root, key)
        check_length(name, OBJECT_NAME_BYTES)
        headers = {
            "ContentType": content_type,
            "ContentDisposition": make_disposition(key),
            **_make_encryption(self._options),
        }
        target = Target(self._bucket, name, attempt, headers, self._options.part_size, self._options.parts_in_flight)
        return S3Upload(self._calls, target, self._on_part)

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
        return self._outside.presign(params, int(lifetime.total_seconds()))

    def size(self, key: str) -> int | None:
        """Return the size from the object's head."""
        head = load_head(self._calls, self._bucket, join_key(self._root, key))
        return None if head is None else int(head["ContentLength"])

    def delete(self, key: str, attempt: int) -> None:
        """Delete the object, but not one that replaced it since its head was read."""
        name = join_key(self._root, key)
        head = load_head(self._calls, self._bucket, name)
        if head is None or load_attempt(head) > attempt:
            return
        try:
            self._calls.run("delete_object", Bucket=self._bucket, Key=name, condition={"IfMatch": head["ETag"]})
        except Refused as refused:
            if refused.code not in OVERTAKEN:
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
        """Begin a multipart upload and abort it: this needs write permission, and leaves nothing behind."""
        target = {"Bucket": self._bucket, "Key": join_key(self._root, f"{prefix}.waybill-check")}
        begun = self._calls.run("create_multipart_upload", **target, **_make_encryption(self._options))
        # The abort may be applied although its response is lost.
        abort_upload(self._calls, self._bucket, {"Key": target["Key"], "UploadId": begun["UploadId"]})


def _make_filesystem(options: S3Options, endpoint: str | None) -> S3FileSystem:
    return S3FileSystem(
        key=options.access_key_id,
        secret=options.secret_access_key,
        endpoint_url=endpoint,
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs={
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path" if options.force_path_style else "auto"},
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
