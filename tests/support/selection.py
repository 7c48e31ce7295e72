"""Selects requests to ClickHouse and to the stores by what they do."""

import base64
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_proxy import Request

MANIFEST = ".manifest.json"
PART = 5 << 20
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


def stages_block(request: Request) -> bool:
    """Azure's Put Block."""
    return request.method == "PUT" and _query(request).get("comp") == ["block"]


def commits_blocks(request: Request) -> bool:
    """Azure's Put Block List, unless it discards blocks."""
    return request.method == "PUT" and _query(request).get("comp") == ["blocklist"] and b"<Latest>" in request.body


def lists_blocks(request: Request) -> bool:
    """Azure's Get Block List."""
    return request.method == "GET" and _query(request).get("comp") == ["blocklist"]


def discards_blocks(request: Request) -> bool:
    """Azure's Put Block List without blocks."""
    return request.method == "PUT" and _query(request).get("comp") == ["blocklist"] and b"<Latest>" not in request.body


def is_part(request: Request, number: int) -> bool:
    """Whether a block of Azure or a chunk of Google is the one of this number, for parts of 5 MiB."""
    if block := _query(request).get("blockid"):
        return int(base64.b64decode(block[0]).decode().rpartition(".")[2]) == number
    return int(_content_range(request).partition("-")[0]) // PART + 1 == number


def puts_google_manifest(request: Request) -> bool:
    """An object of Google that is stored in one request, and is a manifest."""
    return puts_object(request) and _query(request)["name"][0].endswith(MANIFEST)


def puts_conditionally(request: Request) -> bool:
    """Azure's Put Blob with a condition."""
    return request.method == "PUT" and "comp" not in _query(request) and "If-Match" in request.headers


def sends_chunk(request: Request) -> bool:
    """A chunk of an upload to Google, also the last one if it has bytes."""
    return request.method == "PUT" and _content_range(request)[:1].isdecimal()


def ends_chunks(request: Request) -> bool:
    """The last chunk of an upload to Google, if it has bytes."""
    return sends_chunk(request) and not _content_range(request).endswith("/*")


def asks_for_state(request: Request) -> bool:
    """The question how much of an upload Google has stored."""
    return request.method == "PUT" and _content_range(request) == "*/*"


def puts_object(request: Request) -> bool:
    """An object of Google that is stored in one request."""
    return request.method == "POST" and _query(request).get("uploadType") == ["multipart"]


def writes(request: Request) -> bool:
    """Every request that stores something."""
    return request.method in {"PUT", "POST"}


def _is_file(request: Request) -> bool:
    path = unquote(urlsplit(request.path).path)
    return "-export-" in path and not path.endswith(MANIFEST)


def _content_range(request: Request) -> str:
    return request.headers.get("Content-Range", "").removeprefix("bytes ")


def _query(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.path).query, keep_blank_values=True)
