"""Finds out which guarantees a store can't give, with a few small requests."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.storage.s3_body import Body
from pipeline.storage.s3_calls import DENIED, Calls
from pipeline.storage.s3_conditions import FAILED_CONDITIONS, REFUSED_CONDITIONS, Conditions
from pipeline.storage.s3_objects import ATTEMPT, MISSING, abort_upload, load_head
from pipeline.storage.types import Refused

NEVER_MET = {"IfMatch": '"00000000000000000000000000000000"'}
"""A condition that no object meets."""

_CONTENT = b"."


def check_writing(calls: Calls, place: Mapping[str, str], headers: Mapping[str, Any]) -> None:
    """Begin a multipart upload at a bucket and key, and abort it; nothing is left behind."""
    begun = calls.run("create_multipart_upload", **place, **headers)
    # The abort may be applied although its response is lost.
    abort_upload(calls, place["Bucket"], {"Key": place["Key"], "UploadId": begun["UploadId"]})


def probe_conditions(
    calls: Calls, conditions: Conditions, place: Mapping[str, str], headers: Mapping[str, Any]
) -> None:
    """Write with a condition that is not met, in one part and in one request, and note what the store does.

    If the store ignores conditions, the object at `place` is replaced; if there was none, the new one is deleted.
    """
    existed = load_head(calls, place["Bucket"], place["Key"]) is not None
    put = {**place, **headers, **NEVER_MET, "Body": Body([_CONTENT])}
    _probe(conditions, "put_object", lambda: calls.run("put_object", **put))
    with _one_part(calls, place, headers) as upload:
        complete = "complete_multipart_upload"
        _probe(conditions, complete, lambda: calls.run(complete, **place, **upload, **NEVER_MET))
    if conditions.weaknesses and not existed:
        # Without the right to delete, the next probe finds the object.
        with suppress(Refused):
            calls.run("delete_object", **place)


def find_limits(calls: Calls, place: Mapping[str, str]) -> list[str]:
    """Return one sentence for each property of objects that the store hides; one with an attempt is at `place`."""
    found = []
    head = load_head(calls, place["Bucket"], place["Key"])
    if head is not None and ATTEMPT not in head.get("Metadata", {}):
        found.append(
            "the store drops the metadata of objects: "
            "a worker that lost its lease could remove the file of the next attempt"
        )
    if _is_missing_denied(calls, place):
        found.append(
            "the store answers 403 for a missing object: allow s3:ListBucket on "
            f"arn:aws:s3:::{place['Bucket']}, so that a missing right is reported by its name"
        )
    return found


def _probe(conditions: Conditions, method: str, write: Callable[[], object]) -> None:
    try:
        write()
    except Refused as refused:
        if refused.code in FAILED_CONDITIONS | MISSING:
            conditions.keep(method)
        elif refused.code in REFUSED_CONDITIONS:
            conditions.refuse(method)
        # Another refusal says nothing about conditions.
    else:
        conditions.ignore(method)


@contextmanager
def _one_part(calls: Calls, place: Mapping[str, str], headers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Upload one part, and give what completes the upload; the block's end aborts it."""
    begun = calls.run("create_multipart_upload", **place, **headers)
    try:
        part = calls.run("upload_part", **place, UploadId=begun["UploadId"], PartNumber=1, Body=Body([_CONTENT]))
        parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
        yield {"UploadId": begun["UploadId"], "MultipartUpload": {"Parts": parts}}
    finally:
        abort_upload(calls, place["Bucket"], {"Key": place["Key"], "UploadId": begun["UploadId"]})


def _is_missing_denied(calls: Calls, place: Mapping[str, str]) -> bool:
    try:
        calls.run("head_object", Bucket=place["Bucket"], Key=f"{place['Key']}.missing")
    except Refused as refused:
        return refused.code in DENIED
    return False
