"""Serves the operators' page and its API on the internal port."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiohttp import web
from pydantic import SecretStr

from config.errors import Rejected, Unavailable
from config.events import are_valid_ids
from consumer.job_store import Jobs
from consumer.models import ExportKey, Job, Unreadable
from consumer.new_exports import check_new, create_once, publish_request
from consumer.operators.access import Access
from consumer.operators.fields import describe_export
from consumer.operators.overview import Observed, Overview
from consumer.operators.problems import Problem
from consumer.operators.requests import read_new_export
from consumer.queries import list_runs
from runtime.dead_letters import LatestDeadLetters
from runtime.http import Health
from runtime.publisher import Publisher
from runtime.threads import start_in_thread

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[[web.Request], Awaitable[web.Response]]

FOLDER = Path(__file__).parent
API = "/api/v1"
EXPORT = f"{API}/exports/{{project}}/{{export}}"
MAX_CALLS = 4
TURN_SECONDS = 5.0
CALL_SECONDS = 15.0
BODY_SECONDS = 10.0
MAX_BODY = 48 * 1024
"""The port closes connections that send more than 64 KiB before a response begins."""

RETRY_SECONDS = 5.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
FILES = {
    "/": ("static/page.html", "text/html"),
    "/operators.css": ("static/page.css", "text/css"),
    "/operators.js": ("static/page.js", "text/javascript"),
    f"{API}/openapi.yaml": ("openapi.yaml", "application/yaml"),
}


@dataclass(frozen=True, kw_only=True)
class OperatorsContext:
    """What the page and the API are built from; without a `token`, no changes are allowed."""

    jobs: Jobs
    publisher: Publisher
    requests_topic: str
    read_dead_letters: Callable[[], LatestDeadLetters]
    now: Callable[[], datetime]
    version: str
    token: SecretStr | None


@dataclass(frozen=True)
class _Described:
    """An export as JSON. A stored query may be large, so it is encoded in a thread, too."""

    key: ExportKey
    body: bytes


class Operators:
    """The page for operators, and the API that it uses.

    Anyone who reaches the port may read; changes need the token. Calls to the database run in a few threads and are
    limited in time, so that clients can't block exports.
    """

    def __init__(self, context: OperatorsContext, health: Health) -> None:
        self._context = context
        self._access = Access(context.token)
        observed = Observed(
            engine=context.jobs.engine,
            read_dead_letters=context.read_dead_letters,
            now=context.now,
            version=context.version,
            changes_allowed=self._access.possible,
        )
        self._overview = Overview(observed, health)
        self._turns = asyncio.Semaphore(MAX_CALLS)

    def routes(self) -> tuple[web.RouteDef, ...]:
        """Return the routes for the internal port."""
        return (
            *(web.get(path, _guard(_serve_file(*file))) for path, file in FILES.items()),
            web.get(f"{API}/overview", _guard(self._show_overview)),
            web.get(f"{API}/access", _guard(self._check_access)),
            web.post(f"{API}/exports", _guard(self._create)),
            web.get(EXPORT, _guard(self._show)),
            web.post(f"{EXPORT}/cancel", _guard(self._cancel)),
            web.post(f"{EXPORT}/retry", _guard(self._retry)),
            web.route("*", f"{API}/{{rest:.*}}", _guard(_refuse)),
        )

    async def _show_overview(self, _: web.Request) -> web.Response:
        loaded = await self._overview.read()
        if loaded.value is None:
            raise Problem(503, "No overview", loaded.problem or "", retry_after=RETRY_SECONDS)
        return web.Response(body=loaded.value, content_type="application/json")

    async def _check_access(self, request: web.Request) -> web.Response:
        self._access.check(request)
        return web.Response(status=204)

    async def _show(self, request: web.Request) -> web.Response:
        return _answer(await self._call(self._describe, *_ids(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        self._access.check(request)
        return _answer(await self._change(self._context.jobs.cancel, "cancelled", request))

    async def _retry(self, request: web.Request) -> web.Response:
        self._access.check(request)
        described = await self._change(self._context.jobs.retry, "retried", request)
        self._announce(described.key)
        return _answer(described)

    async def _create(self, request: web.Request) -> web.Response:
        self._access.check(request)
        body = await _read_body(request)
        described, created = await self._call(self._insert, body, request.headers.get("Idempotency-Key"))
        if created:
            logger.info("an operator created an export", extra=described.key.log_context())
            self._announce(described.key)
            self._overview.expire()
        return _answer(described, status=201 if created else 200)

    async def _change(self, change: Callable[[Job, datetime], None], verb: str, request: web.Request) -> _Described:
        described = await self._call(self._apply, change, *_ids(request))
        logger.info("an operator %s an export", verb, extra=described.key.log_context())
        self._overview.expire()
        return described

    def _insert(self, body: bytes, key: str | None) -> tuple[_Described, bool]:
        new, now = read_new_export(body, key), self._context.now()
        try:
            check_new(new, now)
        except Rejected as refused:
            raise Problem(422, "The export can't be created", str(refused)) from refused
        try:
            job, created = create_once(self._context.jobs, new, now)
        except Rejected as refused:
            raise Problem(422, "The Idempotency-Key was used before", str(refused)) from refused
        return self._describe(job.project_id, job.id), created

    def _apply(self, change: Callable[[Job, datetime], None], project: str, export: str) -> _Described:
        try:
            change(self._find(project, export), self._context.now())
        except Rejected as refused:
            raise Problem(409, "The state of the export does not allow this", str(refused)) from refused
        return self._describe(project, export)

    def _describe(self, project: str, export: str) -> _Described:
        job = self._find(project, export)
        fields = describe_export(job, list_runs(self._context.jobs.engine, job))
        return _Described(job.key, json.dumps(fields).encode())

    def _find(self, project: str, export: str) -> Job:
        job = self._context.jobs.find(project, export) if are_valid_ids(project, export) else None
        if job is None:
            raise Problem(404, "There is no such export", f"There is no export {export} in project {project}.")
        return job

    def _announce(self, key: ExportKey) -> None:
        """Publish the request in a thread; the answer does not wait for Kafka."""
        publisher, topic = self._context.publisher, self._context.requests_topic

        def publish() -> None:
            try:
                publish_request(publisher, topic, key.project_id, key.export_id)
            except Unavailable as error:
                logger.warning("%s", error, extra=key.log_context())

        start_in_thread(publish)

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call in a thread, in turn; a call that takes too long keeps its turn until it ends."""
        try:
            await asyncio.wait_for(self._turns.acquire(), TURN_SECONDS)
        except TimeoutError as error:
            text = "Other requests take too long: the database may be slow."
            raise Problem(503, "Too many requests", text, retry_after=RETRY_SECONDS) from error
        calling = start_in_thread(function, *args, **kwargs)
        calling.add_done_callback(lambda _: self._turns.release())
        done, _ = await asyncio.wait({calling}, timeout=CALL_SECONDS)
        if not done:
            text = f"No answer within {CALL_SECONDS:g} s. Check the export before you repeat the request."
            raise Problem(504, "The database is slow", text)
        return calling.result()


def _guard(handler: Handler) -> Handler:
    """Answer errors as problem details, and send the security headers with every response."""

    async def handle(request: web.Request) -> web.Response:
        try:
            answer = await handler(request)
        except Problem as problem:
            answer = problem.answer()
        except Unreadable as error:
            text = f"{error}. A consumer sets it to FAILED if it has not ended."
            answer = Problem(409, "The export can't be read", text).answer()
        except Unavailable as error:
            text = str(error).partition("\n")[0]
            answer = Problem(503, "A dependency is unavailable", text, retry_after=RETRY_SECONDS).answer()
        except Exception:
            logger.exception("a request of an operator failed because of a bug")
            answer = Problem(500, "Internal error", "The log of the consumer has the cause.").answer()
        answer.headers.update(HEADERS)
        return answer

    return handle


def _serve_file(name: str, content_type: str) -> Handler:
    body = (FOLDER / name).read_bytes()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return serve


async def _refuse(request: web.Request) -> web.Response:
    raise Problem(404, "Not found", f"There is no {request.method} {request.path}: see {API}/openapi.yaml.")


async def _read_body(request: web.Request) -> bytes:
    try:
        body = await asyncio.wait_for(request.read(), BODY_SECONDS)
    except TimeoutError as error:
        raise Problem(408, "The body did not arrive in time", f"The limit is {BODY_SECONDS:g} s.") from error
    except web.HTTPRequestEntityTooLarge:
        body = None
    except (web.RequestPayloadError, ConnectionError) as error:
        text = "It did not arrive completely, or its Content-Encoding is wrong."
        raise Problem(400, "The body can't be read", text) from error
    if body is None or len(body) > MAX_BODY:
        raise Problem(413, "The body is too large", f"The limit is {MAX_BODY >> 10} KiB.")
    return body


def _ids(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["export"]


def _answer(described: _Described, status: int = 200) -> web.Response:
    return web.Response(status=status, body=described.body, content_type="application/json")
