"""Reads an Arrow stream from an HTTP answer, and takes nothing but a whole one."""

import re
from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
from urllib3.exceptions import HTTPError

from config.errors import Unavailable
from pipeline.read.faults import failure

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
TAIL = 64 * 1024

_EXCEPTION = re.compile(rb"Code: (\d+)\. DB::Exception: [^\x00]*")


class Body(Protocol):
    """The answer's body; reads up to `amt` bytes, fewer only at its end."""

    def read(self, amt: int) -> bytes:
        """Read; raises urllib3's HTTPError or OSError when the connection fails."""
        ...


class _Tap:
    """A body that remembers how it ended, as pyarrow reads it."""

    closed = False

    def __init__(self, body: Body) -> None:
        self._body = body
        self.tail = b""
        self.ended = False

    def read(self, size: int) -> bytes:
        try:
            data = self._body.read(size)
        except HTTPError as error:
            self._remember(getattr(error.__cause__, "partial", b""))
            raise
        self.ended = self.ended or len(data) < size
        self._remember(data)
        return data

    def _remember(self, data: bytes) -> None:
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]


def batches(body: Body) -> Iterator[pa.RecordBatch]:
    """Yield the stream's batches.

    An answer of status 200 may still fail in its middle: the server writes its exception into the body, or the
    connection ends; and Arrow's own reader takes an end at a message's border for the end of the stream.
    Raises Unavailable when the stream is not whole, or whatever `failure` makes of the server's exception.
    """
    tap = _Tap(body)
    try:
        with pa.ipc.open_stream(pa.PythonFile(tap, "r")) as stream:
            yield from stream
        if tap.ended or tap.tail[-len(END_OF_STREAM) :] != END_OF_STREAM:
            raise _cut(tap)
        if tap.read(TAIL):
            raise _cut(tap)
    except (HTTPError, OSError) as error:  # ArrowInvalid is a ValueError
        raise _cut(tap) from error
    except pa.ArrowException as error:
        _drain(tap)
        raise _cut(tap) from error


def _drain(tap: _Tap) -> None:
    """Read what follows a broken message, for the server's exception may be there."""
    for _ in range(16):
        if not tap.read(TAIL):
            return


def _cut(tap: _Tap) -> Exception:
    if told := _EXCEPTION.search(tap.tail):
        return failure(int(told[1]), told[0].decode(errors="replace"))
    return Unavailable("ClickHouse ended its answer before it was whole")
