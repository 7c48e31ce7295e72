"""Serves the HTTP ports of the daemons: the internal one for probes and scrapers, and the public one for links."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from typing import cast, get_args

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from config.errors import Unavailable
from config.labels import ClosedConnection, PortName
from config.metrics import Metrics
from runtime.connections import BACKLOG, Connections, Limits
from runtime.threads import start_in_thread

logger = logging.getLogger(__name__)

Check = Callable[[], None]
"""Tries one dependency, in a thread; it raises when the dependency does not answer, with the reason as text."""

CHECK_SECONDS = 6.0
KEEP_SECONDS = 2.0
CLOSE_SECONDS = 3.0
"""How long running responses may take when the daemon stops; an interrupted download can be resumed elsewhere."""

METRICS_REST = 9
"""How many times as long as the last rendering of the metrics the next one waits."""

LINGER_SECONDS = 2.0
"""How long a request body that no route has read is received after the response."""


class Health:
    """The health of a daemon: which dependencies answer, and which of its loops make progress.

    `partitions` is the number of partitions assigned to this process, None until it has joined its group.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self.partitions: int | None = None
        self._checks = dict(checks)
        self._running: dict[str, asyncio.Future[str | None]] = {}
        self._seen: tuple[float, dict[str, str | None]] | None = None
        self._asking = asyncio.Lock()
        self._due: dict[str, float] = {}

    def beat(self, loop: str, *, within: float) -> None:
        """Record that `loop` has made progress and will do so again within `within` seconds."""
        self._due[loop] = time.monotonic() + within

    def rest(self) -> None:
        """Expect no more progress of any loop, because the daemon is stopping."""
        self._due.clear()

    def stuck(self) -> list[str]:
        """Return the names of the loops that are overdue."""
        now = time.monotonic()
        return sorted(loop for loop, due in self._due.items() if due < now)

    async def ask(self) -> dict[str, str | None]:
        """Try all dependencies concurrently; each has None if it answers, else the reason. Results are kept for 2 s."""
        async with self._asking:
            if self._seen is None or time.monotonic() - self._seen[0] > KEEP_SECONDS:
                self._seen = time.monotonic(), await self._ask()
            return self._seen[1]

    async def _ask(self) -> dict[str, str | None]:
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = start_in_thread(_try, check)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=CHECK_SECONDS)
        answers: dict[str, str | None] = {}
        for name, task in list(self._running.items()):
            # A check that hangs keeps running, so that calls do not pile up threads.
            answers[name] = task.result() if task.done() else f"no answer within {CHECK_SECONDS:g} s"
            if task.done():
                del self._running[name]
        return answers


def _try(check: Check) -> str | None:
    try:
        check()
    except (Unavailable, ConnectionError, LookupError, ValueError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    except Exception as error:
        logger.exception("the check of a dependency raised an unexpected error")
        return f"internal error ({type(error).__name__}), see the log"
    return None


class _MetricsPage:
    """Renders the metrics on the event loop for no more than a tenth of the time, however many clients ask.

    Requests that come while a rendering waits share it, so a response is never older than its request.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._next: asyncio.Task[bytes] | None = None
        self._not_before = 0.0

    async def read(self) -> bytes:
        """Return the metrics as they are now."""
        if self._next is None:
            self._next = asyncio.create_task(self._render())
        return await asyncio.shield(self._next)

    async def _render(self) -> bytes:
        await asyncio.sleep(self._not_before - time.monotonic())
        self._next = None
        began = time.monotonic()
        page = generate_latest(self._registry)
        ended = time.monotonic()
        self._not_before = ended + METRICS_REST * (ended - began)
        return page


def health_routes(registry: CollectorRegistry, health: Health) -> tuple[web.RouteDef, ...]:
    """Return the routes of a daemon's internal port: /metrics, /livez and /readyz."""
    page = _MetricsPage(registry)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await page.read(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        stuck = health.stuck()
        return web.json_response({"live": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    async def readyz(_: web.Request) -> web.Response:
        answers = await health.ask()
        ready = health.partitions is not None and not any(answers.values())
        body = {
            "ready": ready,
            "dependencies": {name: why or "ok" for name, why in answers.items()},
            "partitions": health.partitions,
        }
        return web.json_response(body, status=200 if ready else 503)

    return web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)


def _hide_malformed(record: logging.LogRecord) -> bool:
    """Log requests that can't be parsed only for debugging: any client could fill the log with tracebacks."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    logger.debug("a request can't be parsed: %s", type(error).__name__)
    return False


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    routes: Iterable[web.RouteDef],
    *,
    name: PortName,
    limits: Limits,
    metrics: Metrics,
) -> AsyncIterator[int]:
    """Serve while the context is open; the context gives the port, a free one when `port` is 0.

    Connections whose clients break `limits` are closed and counted.
    """

    def count(reason: ClosedConnection) -> None:
        metrics.connections_closed.labels(name, reason).inc()

    for reason in get_args(ClosedConnection):  # Prometheus sees no increase when a series appears as 1
        metrics.connections_closed.labels(name, reason)
    connections = Connections(limits, count)
    app = web.Application(middlewares=[connections.track])
    app.add_routes(routes)
    server_logger.addFilter(_hide_malformed)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=CLOSE_SECONDS,
        keepalive_timeout=2 * limits.idle,  # `connections` closes idle ones earlier
        lingering_time=LINGER_SECONDS,
    )
    await runner.setup()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with closing(socket.create_server((host, port), family=family, backlog=BACKLOG)) as listener:
            listener.settimeout(0)
            address, bound = listener.getsockname()[:2]
            server = cast("web.Server", runner.server)  # set by `setup`
            tasks = [
                asyncio.create_task(connections.accept(listener, server)),
                asyncio.create_task(connections.watch()),
            ]
            logger.info("listening", extra={"host": address, "port": bound, "serves": name})
            try:
                yield bound
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await runner.cleanup()
