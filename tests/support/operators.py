"""Serves the operators' page and its API on an internal port, with a client that follows no redirects."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine

from config.metrics import Metrics
from consumer.job_store import Jobs
from consumer.operators.app import Operators, OperatorsContext
from runtime.connections import Limits
from runtime.dead_letters import DeadLetter, LatestDeadLetters
from runtime.http import Check, Health, health_routes, serve
from runtime.publisher import Outgoing
from tests.support.daemons import eventually
from tests.support.exports import CLAIM_POLICY, NOW
from tests.support.intake import FakePublisher
from tests.support.openapi import check_answer, find_operation

TOKEN = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def dead_letters(*letters: DeadLetter) -> LatestDeadLetters:
    return LatestDeadLetters(total=len(letters), latest=list(letters))


def dead_letter(number: int, reason: str, *, key: bytes = b"export-1") -> DeadLetter:
    why = {"reason": reason, "error-class": "malformed", "topic": "export-requests", "time": "2026-11-21T11:00:00.000Z"}
    return DeadLetter(partition=0, offset=number, key=key, value=None, headers=(), why=why)


@dataclass
class OperatorServer:
    """A consumer's internal port, whose dependencies and dead letters a test decides."""

    engine: Engine
    token: str | None = TOKEN
    checks: dict[str, Check] = field(default_factory=lambda: dict.fromkeys(("database", "kafka"), lambda: None))
    dead_letters: Callable[[], LatestDeadLetters] = lambda: LatestDeadLetters(total=0, latest=[])
    time: datetime = NOW
    base: str = ""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.engine, CLAIM_POLICY)
        self.publisher = FakePublisher()
        self.health = Health(self.checks)
        self.health.partitions = 8

    def change(self, path: str, headers: Mapping[str, str] = BEARER) -> Answer:
        return self.ask(path, "POST", headers)

    def create(self, body: Any, key: str | None = "key-1", headers: Mapping[str, str] = BEARER) -> Answer:
        keys = {} if key is None else {"Idempotency-Key": key}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("/api/v1/exports", "POST", {**headers, **keys}, text)

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.base).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            read = Answer(answer.status, answer.headers, answer.read())
        if find_operation(method, path) is not None:
            check_answer(method, path, read.status, read.headers["Content-Type"], read.body)
        return read

    def overview(self) -> Any:
        answer = self.ask("/api/v1/overview")
        assert answer.status == 200, answer.body
        return answer.json()

    def wait_for_requests(self, count: int) -> list[Outgoing]:
        """Wait until this number of requests is published, because answers do not wait for that."""
        eventually(lambda: len(self.publisher.sent) >= count, what="the request is published")
        return self.publisher.sent

    def routes(self) -> tuple[web.RouteDef, ...]:
        """The routes that a consumer adds to its internal port."""
        context = OperatorsContext(
            jobs=self.jobs,
            publisher=self.publisher,  # type: ignore[arg-type] # stands in for Kafka
            requests_topic="export-requests",
            read_dead_letters=self.dead_letters,
            now=lambda: self.time,
            version="0.1.0",
            token=None if self.token is None else SecretStr(self.token),
        )
        return Operators(context, self.health).routes()

    @contextlib.contextmanager
    def open(self) -> Iterator["OperatorServer"]:
        """Serve while the block runs, in a thread."""
        loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        metrics = Metrics(CollectorRegistry())

        async def run() -> None:
            routes, limits = (*health_routes(metrics.registry, self.health), *self.routes()), Limits(connections=128)
            async with serve("127.0.0.1", 0, routes, name="internal", limits=limits, metrics=metrics) as port:
                self.base = f"http://127.0.0.1:{port}"
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        try:
            assert ready.wait(20)
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            assert not thread.is_alive()
            loop.close()
