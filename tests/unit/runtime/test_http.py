import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from config.metrics import Metrics
from runtime import http
from runtime.connections import Limits
from runtime.http import Check, Health, health_routes, serve


def healthy() -> None:
    return


def unreachable() -> None:
    raise ConnectionError("no route to it\nand a second line")


def ask(
    checks: dict[str, Check], *paths: str, before: Callable[[Health], None] = lambda _: None
) -> list[tuple[int, str]]:
    async def run() -> list[tuple[int, str]]:
        health = Health(checks)
        before(health)
        metrics = Metrics(CollectorRegistry())
        metrics.slots.set(3)
        routes, limits = health_routes(metrics.registry, health), Limits(connections=10)
        async with (
            serve("127.0.0.1", 0, routes, name="internal", limits=limits, metrics=metrics) as port,
            aiohttp.ClientSession() as client,
        ):
            answers = []
            for path in paths:
                async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                    answers.append((answer.status, await answer.text()))
            return answers

    return asyncio.run(run())


def test_metrics_are_served() -> None:
    ((status, text),) = ask({}, "/metrics")

    assert status == 200
    assert "waybill_slots 3.0" in text


def test_many_scrapes_share_a_rendering_that_is_newer_than_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []

    def render(registry: CollectorRegistry) -> bytes:
        time.sleep(0.02)
        rendered.append(registry)
        return str(registry.get_sample_value("waybill_slots")).encode()

    monkeypatch.setattr(http, "generate_latest", render)

    async def run() -> None:
        metrics = Metrics(CollectorRegistry())
        routes, limits = health_routes(metrics.registry, Health({})), Limits(connections=200)
        serving = serve("127.0.0.1", 0, routes, name="internal", limits=limits, metrics=metrics)
        async with serving as port, aiohttp.ClientSession() as client:

            async def scrape(slots: int) -> None:
                metrics.slots.set(slots)
                async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    assert float(await answer.text()) >= slots

            await asyncio.gather(*(scrape(slots) for slots in range(100)))
            assert len(rendered) < 20
            await scrape(1000)

    asyncio.run(run())


def joined(health: Health) -> None:
    health.partitions = 0


def test_it_is_ready_when_all_dependencies_answer_and_the_group_is_joined() -> None:
    assert ask({"database": healthy}, "/readyz")[0][0] == 503

    ((status, text),) = ask({"database": healthy}, "/readyz", before=joined)

    assert status == 200
    assert json.loads(text) == {"ready": True, "dependencies": {"database": "ok"}, "partitions": 0}


def test_dependencies_that_do_not_answer_are_named() -> None:
    ((status, text),) = ask({"database": healthy, "kafka": unreachable}, "/readyz", before=joined)

    assert status == 503
    assert json.loads(text)["dependencies"] == {"database": "ok", "kafka": "no route to it"}


def test_a_check_that_hangs_times_out_and_is_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(http, "KEEP_SECONDS", 0)
    hang, started = threading.Event(), []

    def hangs() -> None:
        started.append(1)
        hang.wait(30)

    answers = ask({"database": hangs}, "/readyz", "/readyz", before=joined)
    hang.set()

    assert [status for status, _ in answers] == [503, 503]
    assert json.loads(answers[1][1])["dependencies"]["database"] == "no answer within 0.05 s"
    assert started == [1]


def test_it_is_alive_while_its_loops_make_progress() -> None:
    def slow(health: Health) -> None:
        health.beat("sweeper", within=60)
        health.beat("relay", within=-1)

    assert ask({}, "/livez")[0][0] == 200
    assert ask({}, "/livez", before=slow) == [(503, '{"live": false, "stuck": ["relay"]}')]


def test_concurrent_calls_get_the_same_complete_answer() -> None:
    async def run() -> list[dict[str, Any]]:
        health = Health({"a": healthy, "b": unreachable})
        asking: list[Awaitable[dict[str, Any]]] = [health.ask() for _ in range(5)]
        return list(await asyncio.gather(*asking))

    assert asyncio.run(run()) == [{"a": None, "b": "no route to it"}] * 5


def test_the_counter_of_closed_connections_starts_at_zero() -> None:
    metrics = Metrics(CollectorRegistry())

    async def run() -> None:
        async with serve("127.0.0.1", 0, (), name="links", limits=Limits(connections=16), metrics=metrics):
            pass

    asyncio.run(run())
    labels = {"port": "links", "reason": "idle"}
    assert metrics.registry.get_sample_value("waybill_http_connections_closed_total", labels) == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/9.9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_a_malformed_request_gets_400_and_is_not_logged_as_an_error(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> bytes:
        limits, metrics = Limits(connections=16), Metrics(CollectorRegistry())
        async with serve("127.0.0.1", 0, (), name="links", limits=limits, metrics=metrics) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_)
            response = await reader.readline()
            writer.close()
            return response

    assert b" 400 " in asyncio.run(run())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_body_that_cannot_be_decoded_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"

    async def run() -> bytes:
        limits, metrics = Limits(connections=16), Metrics(CollectorRegistry())
        async with serve("127.0.0.1", 0, (), name="links", limits=limits, metrics=metrics) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            response = await reader.readline()
            writer.write(b"abcd")
            await reader.read()
            writer.close()
            return response

    assert b" 404 " in asyncio.run(run())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
