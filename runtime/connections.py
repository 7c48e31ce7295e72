"""Limits the connections of an HTTP port: how many there are, and how long a client may take to send and to read."""

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from config.labels import ClosedConnection, PortName

logger = logging.getLogger(__name__)

WANTED_DESCRIPTORS = 1 << 16
TICK_SECONDS = 1.0
MOST: Mapping[PortName, int] = {"links": 512, "internal": 128}
SHARES: Mapping[PortName, int] = {"links": 8, "internal": 16}
FEWEST = 16
BACKLOG = 256
"""How many new connections the kernel holds until they are accepted."""

BATCHES = 16
FULL_SECONDS = 0.002
"""While a port is full, a sixteenth of its connections is replaced at a time, with a pause in between."""

RETRY_SECONDS = 1.0
"""The pause when a connection can't be accepted, because descriptors or memory are missing."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the clients of one port may use; times are in seconds.

    `request` is the time for a whole request header, from the connection or from its first byte. `idle` is the time
    between two requests; proxies that keep connections close them after 60 s, and must do so first. `read` is the time
    in which a client must read what is buffered for it, at most a few hundred KiB.
    """

    connections: int
    request: float = 10.0
    idle: float = 75.0
    read: float = 30.0
    request_bytes: int = 1 << 16


def raise_descriptor_limit() -> int:
    """Raise the number of files and sockets that this process may open, as far as allowed; returns the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def limits_of(port: PortName, descriptors: int) -> Limits:
    """Return the limits of a port in a process that may open this number of descriptors.

    Few of these are for HTTP, because exports need sockets, and the download of a local file takes two descriptors.
    """
    return Limits(connections=max(FEWEST, min(MOST[port], descriptors // SHARES[port])))


class Connections:
    """The open connections of one port.

    aiohttp has no timeout for a request header, and closes an idle connection only after the client has read its last
    response. So each connection's protocol is wrapped, and a connection that breaks a limit is aborted. When there are
    too many, the one that has been waiting for its client the longest makes room for a new one.
    """

    def __init__(self, limits: Limits, on_close: Callable[[ClosedConnection], None]) -> None:
        self._limits = limits
        self._on_close = on_close
        self._open: dict[web.RequestHandler, _Connection] = {}

    async def accept(self, listener: socket.socket, server: web.Server) -> None:
        """Accept the connections of a non-blocking socket until cancelled; `server` answers them.

        While there are too many, only a few are accepted at a time, so that each has time to send its request before
        others push it out, and a flood does not keep the event loop busy. asyncio's own server accepts as many as wait.
        """
        loop, limit = asyncio.get_running_loop(), self._limits.connections
        while True:
            try:
                clients = await _accept_some(listener, max(1, limit // BATCHES))
            except OSError as error:
                logger.warning("a connection can't be accepted: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            connecting = (
                loop.connect_accepted_socket(lambda: _Connection(server(), self, self._limits), client)
                for client in clients
            )
            await asyncio.gather(*connecting, return_exceptions=True)
            if len(self._open) >= limit:
                await asyncio.sleep(FULL_SECONDS)

    @web.middleware
    async def track(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note which connections have a request that is being answered; a middleware of the app."""
        connection = self._open.get(request.protocol)
        if connection is None:  # the client has gone
            return await handler(request)
        connection.begin_response()
        try:
            return await handler(request)
        finally:
            connection.wait_for_request()

    async def watch(self) -> None:
        """Abort the connections that are overdue, once a second, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for each in list(self._open.values()):
                if reason := each.overdue(now):
                    self.abort(each, reason)

    def add(self, connection: "_Connection") -> None:
        """Add a connection; when there are too many, abort the one that has waited the longest, or else this one."""
        self._open[connection.handler] = connection
        if len(self._open) <= self._limits.connections:
            return
        waiting = [each for each in self._open.values() if each.waiting_since is not None]
        self.abort(min(waiting, key=lambda each: each.waiting_since or 0.0, default=connection), "too_many")

    def abort(self, connection: "_Connection", reason: ClosedConnection) -> None:
        """Close a connection without sending what is buffered."""
        if self.remove(connection):
            connection.transport.abort()
            self._on_close(reason)

    def remove(self, connection: "_Connection") -> bool:
        """Forget a connection that has ended; returns False if it is already forgotten."""
        return self._open.pop(connection.handler, None) is not None


async def _accept_some(listener: socket.socket, most: int) -> list[socket.socket]:
    """Wait for a connection, and accept it and others that wait; OSError if not even one can be accepted."""
    first, _ = await asyncio.get_running_loop().sock_accept(listener)
    clients = [first]
    with suppress(OSError):
        while len(clients) < most:
            clients.append(listener.accept()[0])
    return clients


class _Connection(asyncio.Protocol):
    """Passes everything to aiohttp's protocol, and keeps the times of one connection."""

    transport: asyncio.Transport

    def __init__(self, handler: web.RequestHandler, owner: Connections, limits: Limits) -> None:
        self.handler = handler
        self._owner = owner
        self._limits = limits
        self._answering = False
        # A client that connects is expected to send a request immediately, unlike one that has had a response.
        self._in_request = True
        self._since = time.monotonic()
        self._received = 0
        self._unread_since: float | None = None

    @property
    def waiting_since(self) -> float | None:
        """The time since when this connection has waited for its client; None while a request is being answered."""
        if self._unread_since is not None:
            return self._unread_since
        return None if self._answering else self._since

    def begin_response(self) -> None:
        """Note that a request is complete and is being answered."""
        self._answering = True

    def wait_for_request(self) -> None:
        """Note that the request has its response, and that the next one may come."""
        self._answering = self._in_request = False
        self._since = time.monotonic()
        self._received = 0

    def overdue(self, now: float) -> ClosedConnection | None:
        """Return the limit that the client has broken, if any."""
        limits = self._limits
        if self._unread_since is not None and now - self._unread_since > limits.read:
            return "slow_reader"
        if self._answering:
            return None
        waited = now - self._since
        if self._in_request:
            return "slow_request" if waited > limits.request else None
        if waited > limits.read and self.transport.get_write_buffer_size():
            return "slow_reader"
        return "idle" if waited > limits.idle else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.handler.connection_made(transport)
        self._owner.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._answering:
            if not self._in_request:
                self._in_request = True
                self._since = time.monotonic()
            self._received += len(data)
            if self._received > self._limits.request_bytes:
                self._owner.abort(self, "large_request")
                return
        self.handler.data_received(data)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self._unread_since = time.monotonic()
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        self.handler.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.remove(self)
        self.handler.connection_lost(exc)
