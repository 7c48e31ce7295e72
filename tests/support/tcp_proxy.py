"""A TCP proxy before a server, whose connections can be cut, refused, silenced, slowed and delayed."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

PIECE = 16 * 1024
LOOK_UP = 0.02


@dataclass(frozen=True)
class Weather:
    """What befalls bytes: `silent` passes none, `rate` is bytes/s, `delay` seconds, `cut_after` bytes to a direction.

    The two cuts count the bytes that pass all connections together, from when this weather began.
    """

    silent: bool = False
    rate: float | None = None
    delay: float = 0.0
    cut_after_up: int | None = None
    cut_after_down: int | None = None


FAIR = Weather()


@dataclass
class Wire:
    """One listening port, and the server behind it; all commands are safe from any thread."""

    target: int
    port: int
    _weather: Weather = FAIR
    _passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _listener: socket.socket | None = None

    def be(self, weather: Weather) -> None:
        """Change the weather, for connections that are open too."""
        with self._lock:
            self._weather = weather
            self._passed = {"up": 0, "down": 0}

    def cut(self) -> None:
        """Reset every connection that is open; new ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # A closed descriptor does not wake who accepts on it.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def heal(self) -> None:
        """Take connections, and pass everything at once."""
        self.be(FAIR)
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
            while data := source.recv(PIECE):
                self._endure(len(data), way)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(source, sink)

    def _endure(self, size: int, way: str) -> None:
        """Wait as the weather says; raises ConnectionError where it cuts."""
        while self._weather.silent:
            time.sleep(LOOK_UP)
        weather = self._weather
        time.sleep(weather.delay + (size / weather.rate if weather.rate else 0))
        limit = weather.cut_after_up if way == "up" else weather.cut_after_down
        with self._lock:
            self._passed[way] += size
            spent = limit is not None and self._passed[way] > limit
        if spent:
            raise ConnectionResetError


@contextlib.contextmanager
def wire(target: int, port: int = 0) -> Iterator[Wire]:
    """Run a proxy before a port of this machine for the block, in fair weather."""
    running = Wire(target, port)
    running.heal()
    try:
        yield running
    finally:
        running.refuse()


def change(weather: Weather = FAIR, **values: float | None) -> Weather:
    """Give a weather with some of its values changed."""
    return replace(weather, **values)  # type: ignore[arg-type] # the names are Weather's


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            # Closed with this, a socket says "reset" and not "the end".
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)
        end.close()
