"""The proxies inject the faults that they are told to, and no others."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.barrier import Barrier
from tests.support.http_proxy import HttpProxy, Responder, http_proxy
from tests.support.responses import after_forwarding, cut, cut_at, end_at, hold, hold_at, hold_response, refuse
from tests.support.tcp_proxy import Conditions, TcpProxy, tcp_proxy

BODY = bytes(range(256)) * 1024


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.seen.append(self.path)
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients are cut off on purpose."""


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    seen: list[str] = []
    handler = type("Handler", (Echo,), {"seen": seen})
    with Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1], seen
        server.shutdown()
        thread.join()


@pytest.fixture
def tcp(server: tuple[int, list[str]]) -> Iterator[TcpProxy]:
    with tcp_proxy(server[0]) as running:
        yield running


@pytest.fixture
def proxy(server: tuple[int, list[str]]) -> Iterator[HttpProxy]:
    with http_proxy(f"127.0.0.1:{server[0]}") as running:
        yield running


def post(address: str | int, path: str = "/") -> tuple[int, bytes]:
    """Send BODY; raises OSError or HTTPException when no complete response comes."""
    port = int(str(address).rpartition(":")[2])
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", path, BODY)
        response = connection.getresponse()
        return response.status, response.read()


def test_all_bytes_pass_in_normal_conditions(tcp: TcpProxy, proxy: HttpProxy) -> None:
    assert post(tcp.port) == (200, BODY)
    assert post(proxy.url) == (200, BODY)


def test_a_refusing_tcp_proxy_looks_like_no_server_until_it_is_healed(tcp: TcpProxy) -> None:
    tcp.refuse()
    with pytest.raises(ConnectionRefusedError):
        post(tcp.port)
    tcp.heal()
    assert post(tcp.port) == (200, BODY)


def test_a_silent_tcp_proxy_accepts_connections_and_sends_nothing(tcp: TcpProxy) -> None:
    tcp.apply(Conditions(silent=True))
    with socket.create_connection(("127.0.0.1", tcp.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        tcp.heal()
        client.settimeout(10)
        assert client.recv(8) == b"HTTP/1.1"


@pytest.mark.parametrize(
    "conditions", [Conditions(cut_after_up=100_000), Conditions(cut_after_down=100_000)], ids=["up", "down"]
)
def test_a_tcp_proxy_cuts_after_a_number_of_bytes(tcp: TcpProxy, conditions: Conditions) -> None:
    tcp.apply(conditions)
    with pytest.raises((OSError, http.client.HTTPException)):
        post(tcp.port)
    tcp.heal()
    assert post(tcp.port) == (200, BODY)


def test_a_tcp_proxy_cuts_open_connections(tcp: TcpProxy, server: tuple[int, list[str]]) -> None:
    _, seen = server
    with socket.create_connection(("127.0.0.1", tcp.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        while not seen:  # the proxy has both ends
            time.sleep(0.01)
        tcp.cut()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_tcp_proxy_limits_the_rate(tcp: TcpProxy) -> None:
    tcp.apply(Conditions(rate=len(BODY) * 4))
    began = time.monotonic()
    assert post(tcp.port) == (200, BODY)
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize(
    ("respond", "reaches"), [(refuse(503, "SlowDown"), False), (after_forwarding(refuse(503, "SlowDown")), True)]
)
def test_an_http_proxy_answers_selected_requests(
    proxy: HttpProxy, server: tuple[int, list[str]], respond: Responder, reaches: bool
) -> None:
    proxy.add(lambda request: request.path == "/this", respond, skip=1, times=1)
    assert [post(proxy.url, path)[0] for path in ("/this", "/other", "/this", "/this")] == [200, 200, 503, 200]
    assert server[1].count("/this") == (3 if reaches else 2)


@pytest.mark.parametrize("respond", [cut, cut_at(0.4)], ids=["immediately", "in the body"])
def test_an_http_proxy_cuts_connections(proxy: HttpProxy, respond: Responder) -> None:
    proxy.add(lambda _: True, respond, times=1)
    with pytest.raises((OSError, http.client.HTTPException)):
        post(proxy.url)
    assert post(proxy.url) == (200, BODY)


def test_an_http_proxy_ends_a_response_early_and_cleanly(proxy: HttpProxy) -> None:
    proxy.add(lambda _: True, end_at(0.5, lambda: iter([b"and then"])))
    assert post(proxy.url) == (200, BODY[: len(BODY) // 2] + b"and then")


@pytest.mark.parametrize("before", [True, False], ids=["before the server", "after it"])
def test_an_http_proxy_holds_a_request_until_its_barrier_is_released(
    proxy: HttpProxy, server: tuple[int, list[str]], before: bool
) -> None:
    barrier, responses = Barrier(), []
    proxy.add(lambda _: True, hold(barrier) if before else hold_response(barrier))
    requesting = threading.Thread(target=lambda: responses.append(post(proxy.url)))
    requesting.start()
    barrier.wait_until_reached()
    assert (server[1], responses) == ([] if before else ["/"], [])
    barrier.release()
    requesting.join()
    assert responses == [(200, BODY)]


@pytest.mark.parametrize("respond", [hold, hold_response, lambda barrier: hold_at(0.1, barrier)])
def test_requests_dropped_at_a_barrier_get_no_response(
    proxy: HttpProxy, respond: Callable[[Barrier], Responder]
) -> None:
    barrier = Barrier()
    barrier.drop()
    proxy.add(lambda _: True, respond(barrier))
    with pytest.raises((OSError, http.client.HTTPException)):
        post(proxy.url)
