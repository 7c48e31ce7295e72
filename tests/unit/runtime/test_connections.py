import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from config.labels import ClosedConnection
from config.metrics import Metrics
from runtime import connections
from runtime.connections import Limits, limits_of, raise_descriptor_limit
from runtime.http import serve
from tests.support.clients import HALF_SENT, SLOW_BODY, Behaviour, crowd
from tests.support.daemons import eventually

SHORT = Limits(connections=8, request=0.3, idle=0.6, read=0.4, request_bytes=4096)
PATIENT = Limits(connections=8)
REQUEST = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = REQUEST.replace(b"hello", b"big")
SIZE = 32 << 20


@dataclass(frozen=True)
class Port:
    number: int
    metrics: Metrics

    def connect(self, first: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.number), timeout=20)
        client.sendall(first)
        return client

    def closed(self, reason: ClosedConnection) -> float:
        return float(self.metrics.connections_closed.labels("links", reason)._value.get())

    def answers(self) -> bool:
        with contextlib.closing(self.connect(REQUEST)) as client, contextlib.suppress(ConnectionResetError):
            return client.recv(100).startswith(b"HTTP/1.1 200")
        return False


@contextlib.contextmanager
def port(limits: Limits) -> Iterator[Port]:
    """Serve a short response, one that takes a second, and a big one, while the block runs."""
    ready, stop = threading.Event(), asyncio.Event()
    metrics, opened, loops = Metrics(CollectorRegistry()), [], []

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def later(_: web.Request) -> web.Response:
        await asyncio.sleep(1.5)
        return web.Response(text="later")

    async def big(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE
        await response.prepare(request)
        for _ in range(SIZE >> 18):
            await response.write(bytes(1 << 18))
        return response

    async def run() -> None:
        routes = (web.get("/hello", hello), web.get("/later", later), web.get("/big", big))
        async with serve("127.0.0.1", 0, routes, name="links", limits=limits, metrics=metrics) as number:
            opened.append(Port(number, metrics))
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield opened[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TICK_SECONDS", 0.05)


def is_closed(client: socket.socket) -> bool:
    """Read until the server closes the connection; False if it does not do so within 20 s."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "slow_request"),
        (b"GET", "slow_request"),
        (HALF_SENT, "slow_request"),
        (REQUEST, "idle"),
        (REQUEST + REQUEST, "idle"),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5000, "large_request"),
    ],
    ids=["nothing", "a word", "half a header", "a request", "two requests", "a large header"],
)
def test_a_connection_that_sends_no_request_in_time_is_closed(sent: bytes, reason: ClosedConnection) -> None:
    with port(SHORT) as opened, contextlib.closing(opened.connect(sent)) as client:
        assert is_closed(client)
        assert opened.closed(reason) == 1


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(HALF_SENT, then=b"x"), Behaviour(REQUEST + HALF_SENT, then=b"x"), Behaviour(SLOW_BODY, then=b"x")],
    ids=["header", "second header", "body"],
)
def test_a_client_that_sends_a_byte_at_a_time_is_disconnected(behaviour: Behaviour) -> None:
    with port(SHORT) as opened:
        with crowd(f"http://127.0.0.1:{opened.number}", 4, behaviour) as clients:
            eventually(lambda: clients.closed >= 8, what="each client is disconnected twice")
        assert opened.answers()


def test_a_client_that_reads_nothing_is_disconnected() -> None:
    with port(SHORT) as opened, contextlib.closing(opened.connect(BIG)) as client:
        eventually(lambda: opened.closed("slow_reader") == 1, what="the connection is closed")
        assert is_closed(client)


def test_a_client_that_pipelines_requests_and_reads_nothing_is_disconnected() -> None:
    with port(SHORT) as opened, contextlib.closing(opened.connect(BIG * 20)) as client:
        eventually(lambda: opened.closed("slow_reader") == 1, what="the connection is closed")
        assert is_closed(client)


def test_a_client_that_reads_slowly_gets_the_whole_response() -> None:
    received = 0
    with port(SHORT) as opened, contextlib.closing(opened.connect(BIG)) as client:
        while data := client.recv(1 << 20):
            received += len(data)
            if received % 5 == 0:
                threading.Event().wait(0.01)
            if received >= SIZE:
                break

    assert received >= SIZE


def test_a_request_that_takes_long_to_answer_is_not_disturbed() -> None:
    with port(SHORT) as opened, contextlib.closing(opened.connect(REQUEST.replace(b"hello", b"later"))) as client:
        assert client.recv(1000).endswith(b"later")


def test_a_connection_is_used_again_within_its_idle_time() -> None:
    with port(SHORT) as opened, contextlib.closing(opened.connect()) as client:
        for _ in range(5):
            client.sendall(REQUEST)
            assert client.recv(1000).endswith(b"hello")
            threading.Event().wait(0.2)


@pytest.mark.parametrize("sent", [b"", HALF_SENT, REQUEST, BIG], ids=["nothing", "half", "a request", "no reading"])
def test_a_full_port_closes_the_connection_that_has_waited_longest(sent: bytes) -> None:
    with port(PATIENT) as opened, contextlib.ExitStack() as clients:
        first, *others = [
            clients.enter_context(contextlib.closing(opened.connect(sent))) for _ in range(PATIENT.connections)
        ]
        threading.Event().wait(0.5)

        assert opened.answers()
        assert is_closed(first)
        assert opened.closed("too_many") == 1
        assert len(others) == PATIENT.connections - 1


def test_a_full_port_disturbs_no_request_that_is_being_answered() -> None:
    later = REQUEST.replace(b"hello", b"later")
    with port(PATIENT) as opened, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(contextlib.closing(opened.connect(later))) for _ in range(PATIENT.connections)]
        threading.Event().wait(0.5)
        refused = stack.enter_context(contextlib.closing(opened.connect(REQUEST)))

        assert is_closed(refused)
        assert [each.recv(1000).endswith(b"later") for each in busy] == [True] * len(busy)
        assert opened.answers()


def test_a_flood_of_connections_uses_no_more_than_its_share() -> None:
    limits = Limits(connections=64)
    with port(limits) as opened:
        with crowd(f"http://127.0.0.1:{opened.number}", 300, Behaviour(HALF_SENT)) as clients:
            eventually(lambda: clients.closed > 300, what="connections are closed")
            assert eventually(opened.answers)
        # This answer comes after the loop has taken all connections; it would not close those that it takes at its end.
        assert eventually(opened.answers)


def test_a_tenth_of_the_descriptors_is_for_clients() -> None:
    assert limits_of("links", 1024).connections == 128
    assert limits_of("internal", 1024).connections == 64
    assert limits_of("links", 1 << 20).connections == 512
    assert limits_of("links", 64).connections == 16


def test_the_descriptor_limit_is_raised_as_far_as_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        raised = raise_descriptor_limit()
        assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
        assert raise_descriptor_limit() == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
