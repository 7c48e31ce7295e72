"""Selects requests to ClickHouse and S3 by what they do."""

from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_proxy import Request

MANIFEST = ".manifest.json"
ROW_STATEMENT = b"`input` AS `c"
"""Part of the statement that reads the rows of traces, and of no other."""


def reads_rows(request: Request) -> bool:
    """The statement that reads the rows of traces."""
    return ROW_STATEMENT in request.body


def anything(_: Request) -> bool:
    """Every request."""
    return True


def begins(request: Request) -> bool:
    """CreateMultipartUpload of a file."""
    return request.method == "POST" and "uploads" in _query(request) and _is_file(request)


def sends_part(number: int | None = None) -> Callable[[Request], bool]:
    """UploadPart: any, or the one of this number."""

    def matches(request: Request) -> bool:
        given = _query(request).get("partNumber")
        return request.method == "PUT" and given is not None and number in {None, int(given[0])}

    return matches


def completes(request: Request) -> bool:
    """CompleteMultipartUpload."""
    return request.method == "POST" and "uploadId" in _query(request)


def puts_file(request: Request) -> bool:
    """PutObject of a file that is smaller than a part."""
    return request.method == "PUT" and not _query(request) and _is_file(request)


def puts_manifest(request: Request) -> bool:
    """PutObject of a manifest."""
    return request.method == "PUT" and unquote(urlsplit(request.path).path).endswith(MANIFEST)


def writes(request: Request) -> bool:
    """Every request that stores something."""
    return request.method in {"PUT", "POST"}


def _is_file(request: Request) -> bool:
    path = unquote(urlsplit(request.path).path)
    return "-export-" in path and not path.endswith(MANIFEST)


def _query(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.path).query, keep_blank_values=True)
