"""A TCP proxy in front of a server, whose connections can be cut, refused, silenced, slowed and delayed."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE = 16 * 1024
LOOK_UP = 0.02


@dataclass(frozen=True)
class Conditions:
    """Network conditions: `silent` passes nothing, `rate` is bytes/s, `delay` seconds, `cut_after` bytes per direction.

    The two cuts count the bytes of all connections together, since these conditions were applied.
    """

    silent: bool = False
    rate: float | None = None
    delay: float = 0.0
    cut_after_up: int | None = None
    cut_after_down: int | None = None


NORMAL = Conditions()


@dataclass
class TcpProxy:
    """One listening port, and the server behind it; all methods are safe from any thread."""

    target: int
    port: int
    _conditions: Conditions = NORMAL
    _passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _listener: socket.socket | None = None

    def apply(self, conditions: Conditions) -> None:
        """Change the conditions, for open connections too."""
        with self._lock:
            self._conditions = conditions
            self._passed = {"up": 0, "down": 0}

    def cut(self) -> None:
        """Reset every open connection; new ones are accepted."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing the descriptor does not wake a thread that accepts on it.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def heal(self) -> None:
        """Accept connections, and pass all bytes without delay."""
        self.apply(NORMAL)
        with self._lock:
            if self._listener is None:
                self._listener = _listen(self.port)
                self.port = self._listener.getsockname()[1]
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.append((client, server))
        up = threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True)
        up.start()
        self._pump(server, client, "down")
        up.join()
        for each in (client, server):
            each.close()
        with self._lock, contextlib.suppress(ValueError):
            self._pairs.remove((client, server))

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while data := self._receive(source):
                self._throttle(len(data), way)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(source, sink)

    def _receive(self, source: socket.socket) -> bytes:
        """Return what comes, b"" at its end; raises ConnectionError after a cut, which must not look like an end."""
        data = source.recv(PIECE)
        with self._lock:
            if not any(source in pair for pair in self._pairs):
                raise ConnectionResetError
        return data

    def _throttle(self, size: int, way: str) -> None:
        """Wait as the conditions say; raises ConnectionError where they cut."""
        while self._conditions.silent:
            time.sleep(LOOK_UP)
        conditions = self._conditions
        time.sleep(conditions.delay + (size / conditions.rate if conditions.rate else 0))
        limit = conditions.cut_after_up if way == "up" else conditions.cut_after_down
        with self._lock:
            self._passed[way] += size
            spent = limit is not None and self._passed[way] > limit
        if spent:
            raise ConnectionResetError


@contextlib.contextmanager
def tcp_proxy(target: int, port: int = 0) -> Iterator[TcpProxy]:
    """Run a proxy in front of a port of this machine while the block runs, in normal conditions."""
    running = TcpProxy(target, port)
    running.heal()
    try:
        yield running
    finally:
        running.refuse()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            # With this option, closing the socket sends RST instead of FIN.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)
        end.close()
