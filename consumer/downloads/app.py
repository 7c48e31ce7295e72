"""Serves the download links: each click leads to a fresh URL of the store, to the file itself, or to a page."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from aiohttp import web

from config.errors import Unavailable
from config.labels import DownloadOutcome, NoFile
from config.links import PATH, Links
from config.metrics import Metrics
from consumer.downloads.locate import File, Refusal, locate
from consumer.downloads.pages import PAGES, content_security_policy, render
from consumer.downloads.ranges import Unsatisfiable, read_range
from consumer.downloads.rate_limit import Limit, Rate, client_of
from consumer.jobs import Jobs
from pipeline.storage import Storage
from pipeline.storage.safe_names import attachment
from runtime.threads import in_thread

logger = logging.getLogger(__name__)

EACH = Rate(per_second=1, burst=60)
OVERALL = Rate(per_second=50, burst=300)
CLIENTS = 10_000
LOOKUPS_AT_ONCE = 8
LOOKUP_SECONDS = 5.0
"""How long a request waits for its turn to be looked up: a slow database must not pile them up."""

REDIRECTED: Final = "redirected"
SERVED: Final = "served"
RETRY_SECONDS = {NoFile.NOT_READY: 30, NoFile.UNAVAILABLE: 30}
CHUNK = 1 << 20


class Downloads:
    """Answers GET and HEAD of `/d/<token>`: nothing is consumed, so whoever looks at a link first takes nothing away.

    The token is in no log line and in no error; what a page says is all that a caller learns.
    """

    def __init__(
        self,
        links: Links,
        jobs: Jobs,
        storage: Storage,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
        trusted_proxies: int = 0,
    ) -> None:
        self._links = links
        self._jobs = jobs
        self._storage = storage
        self._metrics = metrics
        self._now = now
        self._trusted_proxies = trusted_proxies
        self._limit = Limit(each=EACH, overall=OVERALL, clients=CLIENTS)
        self._turns = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        for outcome in (REDIRECTED, SERVED, *NoFile):
            metrics.downloads.labels(outcome)

    def routes(self) -> tuple[web.RouteDef, ...]:
        """Give the routes for the daemon's HTTP port."""
        return (web.get(f"{PATH}{{token}}", self._answer),)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        client = client_of(request.remote, request.headers.get("X-Forwarded-For"), self._trusted_proxies)
        if wait := self._limit.take(client, time.monotonic()):
            return self._refuse(Refusal(why=NoFile.LIMITED), retry_after=math.ceil(wait))
        ids = self._links.read(request.match_info["token"])
        if ids is None:
            return self._refuse(Refusal(why=NoFile.INVALID))
        found = await self._locate(ids)
        told = {"project_id": ids[0], "export_id": ids[1]}
        if isinstance(found, Refusal):
            logger.info("a link led to no file: %s", found.why, extra=told)
            return self._refuse(found)
        logger.info("a link led to the file", extra=told)
        url = urlsplit(found.url)
        if url.scheme == "file":
            return await self._serve(request, Path(unquote(url.path)), found)
        self._count(REDIRECTED)
        return web.Response(status=302, headers={"Location": found.url, **_guarded()})

    async def _locate(self, ids: tuple[str, str]) -> File | Refusal:
        try:
            await asyncio.wait_for(self._turns.acquire(), LOOKUP_SECONDS)
        except TimeoutError:
            return Refusal(why=NoFile.UNAVAILABLE)
        try:
            return await in_thread(locate, self._jobs, self._storage, ids, self._now())
        except Unavailable as error:
            logger.warning("a link can't be followed: %s", error)
            return Refusal(why=NoFile.UNAVAILABLE)
        finally:
            self._turns.release()

    async def _serve(self, request: web.Request, path: Path, found: File) -> web.StreamResponse:
        opened = await in_thread(_open, path, found.bytes)
        if opened is None:
            return self._refuse(Refusal(why=NoFile.GONE))
        with closing(opened):
            self._count(SERVED)
            etag = f'"{found.sha256}"'
            headers = {
                "Accept-Ranges": "bytes",
                "Content-Disposition": attachment(found.name),
                "Content-Type": found.content_type,
                "ETag": etag,
                **_guarded(),
            }
            try:
                # A range of another file than the one that the client has the start of would spoil both.
                asked = request.headers.get("Range") if request.headers.get("If-Range", etag) == etag else None
                part = read_range(asked, found.bytes)
            except Unsatisfiable:
                return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{found.bytes}"})
            response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
            if part is not None:
                response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.bytes}"
            return await _send(request, response, opened, part if part is not None else range(found.bytes))

    def _refuse(self, refusal: Refusal, retry_after: int | None = None) -> web.Response:
        self._count(refusal.why)
        retry_after = retry_after or RETRY_SECONDS.get(refusal.why)
        retry = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.Response(
            status=PAGES[refusal.why].status,
            text=render(refusal),
            content_type="text/html",
            charset="utf-8",
            headers=retry | _guarded(),
        )

    def _count(self, outcome: DownloadOutcome) -> None:
        self._metrics.downloads.labels(outcome).inc()


def _guarded() -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex",
    }


def _open(path: Path, size: int) -> IO[bytes] | None:
    """Open the file, None if it is not there any more, or is another by now."""
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
            # The connection breaks off, so that nobody takes the part for the whole.
            raise ConnectionResetError("the file was cut while it was served")
        await response.write(chunk)
        left -= len(chunk)
    await response.write_eof()
    return response
