"""Reads the heads of objects in S3, and aborts uploads."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipeline.storage.s3_calls import DENIED, Calls
from pipeline.storage.types import Refused

ATTEMPT = "waybill-attempt"
"""The name of the metadata that contains the attempt."""

MISSING = {"404", "NoSuchKey"}
"""The error codes of S3 when there is no object."""

_GONE = {"404", "NoSuchUpload"}


def load_head(calls: Calls, bucket: str, name: str) -> dict[str, Any] | None:
    """Return the head of an object, or None if there is no object."""
    return load_if_present(partial(calls.run, "head_object", Bucket=bucket, Key=name))


def load_if_present(head: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the head from a call, or None if the object is missing or looks like that to these credentials.

    A store answers "denied" for a missing object to credentials that may not list the bucket.
    """
    try:
        return head()
    except Refused as refused:
        if refused.code in MISSING | DENIED:
            return None
        raise


def read_version(head: Mapping[str, Any] | None) -> str | None:
    """Return the ETag of a head, or None if there is no object."""
    return None if head is None else str(head["ETag"])


def load_attempt(head: Mapping[str, Any]) -> int:
    """Return the attempt that wrote an object, 0 if its head does not contain it."""
    attempt = head.get("Metadata", {}).get(ATTEMPT, "")
    return int(attempt) if attempt.isdecimal() else 0


def abort_upload(calls: Calls, bucket: str, upload: Mapping[str, Any]) -> bool:
    """Abort an upload from a listing; False if it has ended since."""
    try:
        calls.run("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except Refused as refused:
        if refused.code in _GONE:
            return False
        raise
    return True
