"""Tells the requests to ClickHouse and S3 apart."""

from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_proxy import Asked

MANIFEST = ".manifest.json"
ROW_STATEMENT = b"`input` AS `c"
"""In the statement that reads the rows of traces, and in no other."""


def reads_rows(asked: Asked) -> bool:
    """The statement that reads the rows of traces."""
    return ROW_STATEMENT in asked.body


def anything(_: Asked) -> bool:
    """Every request."""
    return True


def begins(asked: Asked) -> bool:
    """CreateMultipartUpload of a file."""
    return asked.method == "POST" and "uploads" in _query(asked) and _is_file(asked)


def sends_part(number: int | None = None) -> Callable[[Asked], bool]:
    """UploadPart: any, or the one of this number."""

    def matches(asked: Asked) -> bool:
        given = _query(asked).get("partNumber")
        return asked.method == "PUT" and given is not None and number in {None, int(given[0])}

    return matches


def completes(asked: Asked) -> bool:
    """CompleteMultipartUpload."""
    return asked.method == "POST" and "uploadId" in _query(asked)


def puts_file(asked: Asked) -> bool:
    """PutObject of a file that is smaller than a part."""
    return asked.method == "PUT" and not _query(asked) and _is_file(asked)


def puts_manifest(asked: Asked) -> bool:
    """PutObject of a manifest."""
    return asked.method == "PUT" and unquote(urlsplit(asked.path).path).endswith(MANIFEST)


def writes(asked: Asked) -> bool:
    """Every request that stores something."""
    return asked.method in {"PUT", "POST"}


def _is_file(asked: Asked) -> bool:
    path = unquote(urlsplit(asked.path).path)
    return "-export-" in path and not path.endswith(MANIFEST)


def _query(asked: Asked) -> dict[str, list[str]]:
    return parse_qs(urlsplit(asked.path).query, keep_blank_values=True)
