"""The proxies of the fault suite do what their names say, and nothing else."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.barrier import Gate
from tests.support.http_proxy import Act, Door, door
from tests.support.responses import but_first_do, cut, cut_at, ends_at, hold, hold_answer, hold_at, refuse
from tests.support.tcp_proxy import Weather, Wire, wire

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
        """Say nothing: clients are cut off on purpose."""


@pytest.fixture
def served() -> Iterator[tuple[int, list[str]]]:
    seen: list[str] = []
    handler = type("Handler", (Echo,), {"seen": seen})
    with Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], seen
        server.shutdown()
        thread.join()


@pytest.fixture
def line(served: tuple[int, list[str]]) -> Iterator[Wire]:
    with wire(served[0]) as running:
        yield running


@pytest.fixture
def front(served: tuple[int, list[str]]) -> Iterator[Door]:
    with door(f"127.0.0.1:{served[0]}") as running:
        yield running


def post(address: str | int, path: str = "/") -> tuple[int, bytes]:
    """Send BODY; raises OSError or HTTPException when no whole answer comes."""
    port = int(str(address).rpartition(":")[2])
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", path, BODY)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_in_fair_weather_all_bytes_pass(line: Wire, front: Door) -> None:
    assert post(line.port) == (200, BODY)
    assert post(front.url) == (200, BODY)


def test_a_wire_that_refuses_is_like_no_server_until_it_heals(line: Wire) -> None:
    line.refuse()
    with pytest.raises(ConnectionRefusedError):
        post(line.port)
    line.heal()
    assert post(line.port) == (200, BODY)


def test_a_silent_wire_takes_connections_and_says_nothing(line: Wire) -> None:
    line.be(Weather(silent=True))
    with socket.create_connection(("127.0.0.1", line.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        line.heal()
        client.settimeout(10)
        assert client.recv(8) == b"HTTP/1.1"


@pytest.mark.parametrize(
    "weather", [Weather(cut_after_up=100_000), Weather(cut_after_down=100_000)], ids=["up", "down"]
)
def test_a_wire_cuts_after_so_many_bytes(line: Wire, weather: Weather) -> None:
    line.be(weather)
    with pytest.raises((OSError, http.client.HTTPException)):
        post(line.port)
    line.heal()
    assert post(line.port) == (200, BODY)


def test_a_wire_cuts_what_is_open(line: Wire) -> None:
    with socket.create_connection(("127.0.0.1", line.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        time.sleep(0.1)  # until the proxy has both ends
        line.cut()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_slow_wire_is_slow(line: Wire) -> None:
    line.be(Weather(rate=len(BODY) * 4))
    began = time.monotonic()
    assert post(line.port) == (200, BODY)
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize(
    ("act", "reaches"), [(refuse(503, "SlowDown"), False), (but_first_do(refuse(503, "SlowDown")), True)]
)
def test_a_door_answers_by_itself(front: Door, served: tuple[int, list[str]], act: Act, reaches: bool) -> None:
    front.add(lambda asked: asked.path == "/this", act, skip=1, times=1)
    assert [post(front.url, path)[0] for path in ("/this", "/other", "/this", "/this")] == [200, 200, 503, 200]
    assert served[1].count("/this") == (3 if reaches else 2)


@pytest.mark.parametrize("act", [cut, cut_at(0.4)], ids=["at once", "in the body"])
def test_a_door_cuts(front: Door, act: Act) -> None:
    front.add(lambda _: True, act, times=1)
    with pytest.raises((OSError, http.client.HTTPException)):
        post(front.url)
    assert post(front.url) == (200, BODY)


def test_a_door_ends_an_answer_early_and_cleanly(front: Door) -> None:
    front.add(lambda _: True, ends_at(0.5, lambda: iter([b"and then"])))
    assert post(front.url) == (200, BODY[: len(BODY) // 2] + b"and then")


@pytest.mark.parametrize("before", [True, False], ids=["before the server", "after it"])
def test_a_door_holds_a_request_until_its_gate_opens(front: Door, served: tuple[int, list[str]], before: bool) -> None:
    gate, answers = Gate(), []
    front.add(lambda _: True, hold(gate) if before else hold_answer(gate))
    asking = threading.Thread(target=lambda: answers.append(post(front.url)))
    asking.start()
    gate.reached()
    assert (served[1], answers) == ([] if before else ["/"], [])
    gate.open()
    asking.join()
    assert answers == [(200, BODY)]


@pytest.mark.parametrize("act", [hold, hold_answer, lambda gate: hold_at(0.1, gate)])
def test_what_is_dropped_at_a_gate_never_arrives(front: Door, act: Callable[[Gate], Act]) -> None:
    gate = Gate()
    gate.drop()
    front.add(lambda _: True, act(gate))
    with pytest.raises((OSError, http.client.HTTPException)):
        post(front.url)
