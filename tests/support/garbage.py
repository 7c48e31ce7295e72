"""Byte streams that are almost HTTP requests."""

import contextlib
import socket
from collections.abc import Callable
from random import Random
from urllib.parse import urlsplit

_METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"PRI", b"get", b"G\x00T", b"", b"\xff" * 3, b"A" * 9000)
_TARGETS = (
    *(b"/d/x", b"/livez", b"/metrics", b"/", b"*", b"", b"//", b"/%", b"/%00", b"/d/%ff%fe", b"/d/../livez", b"\xc3("),
    *(b"http://[::1", b"/d/" + b"x" * 9000, b"/?" + b"a&" * 3000, b"/d/\xf0\x9f\x98\x80", b"a:b:c"),
)
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1.1", b"HTTP/", b"", b"http/1.1", b"HTTP/9.9")
_HEADERS = (
    *(
        b"Host: x",
        b"Host: x\r\nHost: y",
        b"Host",
        b": x",
        b" Host: x",
        b"Host:\x00",
        b"\xff: \xfe",
        b"X: " + b"y" * 9000,
    ),
    *(b"Content-Length: -1", b"Content-Length: 9" * 2, b"Content-Length: 99999999999999999999", b"Content-Length: a"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip"),
    *(b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: Upgrade\r\nUpgrade: h2c", b"Expect: 100-continue"),
    *(b"Expect: everything", b"Range: bytes=9-1", b"Range: bytes=" + b"0-1," * 900, b"If-Range: \xff"),
    *(b"Cookie: " + b"a=b; " * 900, b"Content-Encoding: gzip", b"Accept-Encoding: br;q=x", b"X-Forwarded-For: ,,,\x01"),
    b"\r\n".join(b"X-%d: y" % number for number in range(300)),
)
_BODIES = (
    b"",
    b"x" * 100,
    b"\x00" * 70000,
    b"0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"5\r\nhello",
    b"-1\r\n\r\n",
    b"z\r\n",
)
_LINE_ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\x00")


def make_garbage(random: Random) -> bytes:
    """Return one byte stream."""
    return random.choice(_SHAPES)(random)


def send_bytes(url: str, data: bytes) -> None:
    """Send bytes to this host and port, and read a part of the response if it comes within a moment."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
        client.settimeout(0.02)
        with contextlib.suppress(OSError):
            client.sendall(data)
            client.recv(1000)


def _request(random: Random) -> bytes:
    end = random.choice(_LINE_ENDS)
    head = b" ".join(random.choice(each) for each in (_METHODS, _TARGETS, _VERSIONS))
    headers = random.choices(_HEADERS, k=random.randrange(6))
    return end.join([head, *headers, b"", random.choice(_BODIES)])


def _whole_with_odd_headers(random: Random) -> bytes:
    headers = random.choices(_HEADERS, k=random.randrange(1, 4))
    return b"\r\n".join([b"GET /d/x HTTP/1.1", b"Host: x", *headers, b"", random.choice(_BODIES)])


def _changed(random: Random) -> bytes:
    changed = bytearray(_request(random) or b"x")
    for _ in range(random.randrange(1, 20)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _noise(random: Random) -> bytes:
    return random.randbytes(random.choice((1, 10, 1000, 100_000)))


def _several(random: Random) -> bytes:
    return b"".join(_request(random) for _ in range(random.randrange(2, 30)))


def _tls(random: Random) -> bytes:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500)


_SHAPES: tuple[Callable[[Random], bytes], ...] = (_request, _whole_with_odd_headers, _changed, _noise, _several, _tls)
