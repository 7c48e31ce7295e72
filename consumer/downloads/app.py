"""Serves the download links: redirects to a fresh URL of the store, serves a local file, or shows an error page."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from aiohttp import web

from config.errors import Unavailable
from config.labels import DownloadOutcome, NoFile
from config.links import PATH, Links
from config.metrics import Metrics
from consumer.downloads.locate import File, NoDownload, locate
from consumer.downloads.pages import PAGES, content_security_policy, render
from consumer.job_store import Jobs
from consumer.rate_limit import Rate, RateLimit, client_of
from pipeline.storage import Storage
from pipeline.storage.safe_names import make_disposition
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

PER_CLIENT = Rate(per_second=1, burst=60)
OVERALL = Rate(per_second=50, burst=300)
CLIENTS = 10_000
MAX_LOOKUPS = 8
LOOKUP_SECONDS = 5.0
"""How long a request waits before its lookup; with a slow database, requests must not pile up."""

REDIRECTED: Final = "redirected"
SERVED: Final = "served"
RETRY_SECONDS = {NoFile.NOT_READY: 30, NoFile.UNAVAILABLE: 30}
CHUNK = 1 << 18
"""Bytes that a client must read within `Limits.read`: 9 KB/s."""


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """The number of trusted proxies in front of the links, and the address of Langfuse's web interface."""

    trusted_proxies: int = 0
    langfuse_url: str | None = None


class Downloads:
    """Answers GET and HEAD of `/d/<token>`. Opening a link consumes nothing, so link scanners do no harm.

    No log line and no error contains the token, and a caller learns no more than the page says.
    """

    def __init__(
        self,
        links: Links,
        jobs: Jobs,
        storage: Storage,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
        options: DownloadOptions,
    ) -> None:
        self._links = links
        self._jobs = jobs
        self._storage = storage
        self._metrics = metrics
        self._now = now
        self._options = options
        self._limit = RateLimit(each=PER_CLIENT, overall=OVERALL, clients=CLIENTS)
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)
        for outcome in (REDIRECTED, SERVED, *NoFile):
            metrics.downloads.labels(outcome)

    def routes(self) -> tuple[web.RouteDef, ...]:
        """Return the routes for the daemon's HTTP port."""
        return (web.get(f"{PATH}{{token}}", self._answer),)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        proxies = self._options.trusted_proxies
        client = client_of(request.remote, request.headers.get("X-Forwarded-For"), proxies)
        if wait := self._limit.take(client, time.monotonic()):
            return self._refuse(NoDownload(why=NoFile.LIMITED), retry_after=math.ceil(wait))
        ids = self._links.read(request.match_info["token"])
        if ids is None:
            return self._refuse(NoDownload(why=NoFile.INVALID))
        found = await self._locate(ids)
        context = {"project_id": ids[0], "export_id": ids[1]}
        if isinstance(found, NoDownload):
            logger.info("a download link led to no file: %s", found.why, extra=context)
            return self._refuse(found, project_id=ids[0])
        logger.info("a download link led to a file", extra=context)
        url = urlsplit(found.url)
        if url.scheme == "file":
            return await self._serve(request, Path(unquote(url.path)), found, ids[0])
        if request.method == "HEAD":
            self._count(SERVED)
            return _describe(found)  # the store's URL is signed for GET, and it answers HEAD with 403
        self._count(REDIRECTED)
        return web.Response(status=302, headers={"Location": found.url, **_security_headers()})

    async def _locate(self, ids: tuple[str, str]) -> File | NoDownload:
        try:
            await asyncio.wait_for(self._lookups.acquire(), LOOKUP_SECONDS)
        except TimeoutError:
            return NoDownload(why=NoFile.UNAVAILABLE)
        try:
            return await in_thread(locate, self._jobs, self._storage, ids, self._now())
        except Unavailable as error:
            logger.warning("a download link can't be opened: %s", error)
            return NoDownload(why=NoFile.UNAVAILABLE)
        finally:
            self._lookups.release()

    async def _serve(self, request: web.Request, path: Path, found: File, project_id: str) -> web.StreamResponse:
        opened = await in_thread(_open, path, found.bytes)
        if opened is None:
            return self._refuse(NoDownload(why=NoFile.GONE), project_id=project_id)
        with closing(opened):
            self._count(SERVED)
            etag = f'"{found.sha256}"'
            headers = {
                "Accept-Ranges": "bytes",
                "Content-Disposition": make_disposition(found.name),
                "Content-Type": found.content_type,
                "ETag": etag,
                **_security_headers(),
            }
            part = _read_range(request, found.bytes, etag)
            if part is None:
                response = web.StreamResponse(status=200, headers=headers)
                return await _send(request, response, opened, range(found.bytes))
            if not part:
                return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{found.bytes}"})
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.bytes}"
            return await _send(request, web.StreamResponse(status=206, headers=headers), opened, part)

    def _refuse(
        self, missing: NoDownload, *, project_id: str | None = None, retry_after: int | None = None
    ) -> web.Response:
        self._count(missing.why)
        retry_after = retry_after or RETRY_SECONDS.get(missing.why)
        retry = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.Response(
            status=PAGES[missing.why].status,
            text=render(missing, self._options.langfuse_url, project_id),
            content_type="text/html",
            charset="utf-8",
            headers=retry | _security_headers(),
        )

    def _count(self, outcome: DownloadOutcome) -> None:
        self._metrics.downloads.labels(outcome).inc()


def _describe(found: File) -> web.Response:
    """Answer HEAD with what the store would say of the file."""
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": make_disposition(found.name),
        "Content-Length": str(found.bytes),
        "Content-Type": found.content_type,
        **_security_headers(),
    }
    return web.Response(headers=headers)


def _security_headers() -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex",
    }


def _read_range(request: web.Request, size: int, etag: str) -> range | None:
    """Return the bytes that the request asks for (RFC 9110, section 14): None for all, empty if there are none.

    A Range header that is not a single range of bytes is ignored, as the standard allows.
    """
    # After a download of another file was interrupted, a range of this file would corrupt it.
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start == 0 and "=-" in request.headers["Range"]:
        return range(0)  # aiohttp reads "the last 0 bytes" as all bytes
    return range(size)[asked]


def _open(path: Path, size: int) -> IO[bytes] | None:
    """Open the file; None if it was deleted or has another size."""
    try:
        opened = path.open("rb", buffering=0)
    except OSError:
        return None
    if os.fstat(opened.fileno()).st_size != size:
        opened.close()
        return None
    return opened


async def _send(request: web.Request, response: web.StreamResponse, file: IO[bytes], part: range) -> web.StreamResponse:
    response.content_length = len(part)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    file.seek(part.start)
    left = len(part)
    while left:
        chunk = await in_thread(file.read, min(CHUNK, left))
        if not chunk:
            # The connection is closed, so that the client notices that the file is incomplete.
            raise ConnectionResetError("the file was truncated while it was served")
        await response.write(chunk)
        left -= len(chunk)
    await response.write_eof()
    return response
