"""HTTP clients that misbehave: they send half a request, read nothing, or open connections without end."""

import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

HALF_SENT = b"GET /d/x HTTP/1.1\r\nHost: x\r\nX: "
WHOLE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW_BODY = b"POST /d/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
PIPELINED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400


@dataclass(frozen=True)
class Behaviour:
    """What each client does: it sends `first`, then `then` once a second; it reads nothing if not `reads`."""

    first: bytes
    then: bytes = b""
    reads: bool = True


class Crowd:
    """Many clients; one whose connection the server closes, or that can't connect within 5 s, connects again."""

    def __init__(self, url: str, count: int, behaviour: Behaviour) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._behaviour = behaviour
        self._selector = selectors.DefaultSelector()
        self._opened: dict[socket.socket, float] = {}
        self._served: set[socket.socket] = set()
        self._stop = threading.Event()
        self.closed = 0
        """Connections that the server closed."""
        for _ in range(count):
            self._open()

    @property
    def connected(self) -> int:
        """The number of clients that are connected and have sent their first bytes."""
        return len(self._served)

    def run(self) -> None:
        """Misbehave until `stop`."""
        for ticks in itertools.count():
            if self._stop.is_set():
                break
            for key, events in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                self._serve(key.fileobj, events)
            now = time.monotonic()
            for each in [each for each, since in self._opened.items() if since < now - 5 and each not in self._served]:
                self._replace(each)
            if self._behaviour.then and not ticks % 10:
                self._send_more()
        for each in self._opened:
            each.close()
        self._selector.close()

    def stop(self) -> None:
        self._stop.set()

    def _open(self) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        client.connect_ex(self._address)
        self._opened[client] = time.monotonic()
        self._selector.register(client, selectors.EVENT_WRITE)

    def _serve(self, client: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                client.send(self._behaviour.first)
                self._served.add(client)
                self._selector.modify(client, selectors.EVENT_READ)
            elif not client.recv(65536 if self._behaviour.reads else 1):
                raise ConnectionResetError
            elif not self._behaviour.reads:
                self._selector.unregister(client)
        except OSError:
            self.closed += client in self._served
            self._replace(client)

    def _send_more(self) -> None:
        for client in list(self._served):
            try:
                client.send(self._behaviour.then)
            except BlockingIOError:
                continue
            except OSError:
                self.closed += 1
                self._replace(client)

    def _replace(self, client: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(client)
        client.close()
        del self._opened[client]
        self._served.discard(client)
        self._open()


@contextlib.contextmanager
def crowd(url: str, count: int, behaviour: Behaviour) -> Iterator[Crowd]:
    """Let this number of clients misbehave at this address while the block runs."""
    clients = Crowd(url, count, behaviour)
    thread = threading.Thread(target=clients.run, daemon=True)
    thread.start()
    try:
        yield clients
    finally:
        clients.stop()
        thread.join(20)
        assert not thread.is_alive()
