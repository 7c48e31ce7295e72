"""Keeps files in S3 and what speaks it, through s3fs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from s3fs import S3FileSystem

from config.labels import PartOutcome
from pipeline.storage.s3_calls import Calls, Refused
from pipeline.storage.s3_upload import OVERTAKEN, S3Upload, Target, abort_upload, look, written_by
from pipeline.storage.safe_names import attachment, joined
from pipeline.storage.types import MAX_LIFETIME


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """How to reach a bucket; None leaves the choice to the AWS client's own environment and defaults.

    `external_endpoint` is the one that links are made for. `part_size` (bytes) is that of an upload's first parts.
    `pauses` are the seconds, give or take a half, before each further try of a call that failed in passing.
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
        self._calls = Calls(_filesystem(options, options.endpoint), options.pauses)
        self._outside = Calls(_filesystem(options, options.external_endpoint or options.endpoint), options.pauses)

    def open(self, key: str, content_type: str, attempt: int) -> S3Upload:
        """Start an object; none of it is sent before the first part is full."""
        name = joined(self._root, key)
        headers = {
            "ContentType": content_type,
            "ContentDisposition": attachment(key),
            **_encryption(self._options),
        }
        target = Target(self._bucket, name, attempt, headers, self._options.part_size, self._options.parts_in_flight)
        return S3Upload(self._calls, target, self._on_part)

    def sign(self, key: str, lifetime: timedelta, filename: str, content_type: str) -> str:
        """Sign a download with the external endpoint; lives no longer than the credentials that sign it."""
        if not timedelta() < lifetime <= MAX_LIFETIME:
            raise ValueError(f"a link lives for up to {MAX_LIFETIME}, not {lifetime}")
        params = {
            "Bucket": self._bucket,
            "Key": joined(self._root, key),
            "ResponseContentDisposition": attachment(filename),
            "ResponseContentType": content_type,
        }
        return self._outside.presign(params, int(lifetime.total_seconds()))

    def size(self, key: str) -> int | None:
        """Ask for the object's head."""
        head = look(self._calls, self._bucket, joined(self._root, key))
        return None if head is None else int(head["ContentLength"])

    def delete(self, key: str, attempt: int) -> None:
        """Delete the object that was looked at, and none that took its place since."""
        name = joined(self._root, key)
        head = look(self._calls, self._bucket, name)
        if head is None or written_by(head) > attempt:
            return
        try:
            self._calls.run("delete_object", Bucket=self._bucket, Key=name, condition={"IfMatch": head["ETag"]})
        except Refused as refused:
            if refused.code not in OVERTAKEN:
                raise

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Abort multipart uploads; parts that nobody completes are stored and billed for ever."""
        return sum(abort_upload(self._calls, self._bucket, each) for each in self._uploads(prefix, older_than))

    def list_uploads(self, prefix: str, older_than: datetime) -> set[str]:
        """Name the keys of multipart uploads that nobody has ended."""
        start = len(self._root) + 1 if self._root else 0
        return {each["Key"][start:] for each in self._uploads(prefix, older_than)}

    def _uploads(self, prefix: str, older_than: datetime) -> Iterator[dict[str, Any]]:
        start = f"{self._root}/{prefix}" if self._root else prefix
        marker: dict[str, str] = {}
        while True:
            page = self._calls.run("list_multipart_uploads", Bucket=self._bucket, Prefix=start, **marker)
            yield from (upload for upload in page.get("Uploads", []) if upload["Initiated"] < older_than)
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def check(self) -> None:
        """Begin a multipart upload and abort it: that needs the right to write, and leaves nothing to see."""
        target = {"Bucket": self._bucket, "Key": joined(self._root, ".waybill-check")}
        begun = self._calls.run("create_multipart_upload", **target, **_encryption(self._options))
        # A try whose answer was lost has done it.
        abort_upload(self._calls, self._bucket, {"Key": target["Key"], "UploadId": begun["UploadId"]})


def _filesystem(options: S3Options, endpoint: str | None) -> S3FileSystem:
    return S3FileSystem(
        key=options.access_key_id,
        secret=options.secret_access_key,
        endpoint_url=endpoint,
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs={
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path" if options.force_path_style else "auto"},
            # Others than AWS do not know the checksums that its clients send by default.
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


def _encryption(options: S3Options) -> dict[str, Any]:
    if options.sse is None:
        return {}
    kms = {"SSEKMSKeyId": options.sse_kms_key_id} if options.sse == "aws:kms" and options.sse_kms_key_id else {}
    return {"ServerSideEncryption": options.sse, **kms}
