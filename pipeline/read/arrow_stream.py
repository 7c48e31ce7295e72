"""Reads an Arrow stream from an HTTP response, and fails unless the stream is complete."""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
from urllib3.exceptions import HTTPError

from config.errors import Unavailable
from pipeline.read.clickhouse_errors import find_server_error

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
TAIL = 64 * 1024
PIECE_BYTES = 64 << 10
"""The body is read in pieces of this size, because the client's library joins what one call returns from copies.

The allocator takes much larger pieces as new memory each time, which costs a tenth of the CPU of reading.
"""


class Body(Protocol):
    """The body of a response; reads up to `amt` bytes, fewer only at its end."""

    def read(self, amt: int) -> bytes:
        """Read; raises urllib3's HTTPError or OSError when the connection fails."""
        ...


class _Recorder:
    """A body, as pyarrow reads it, that keeps its last bytes."""

    closed = False

    def __init__(self, body: Body) -> None:
        self._body = body
        self.tail = b""
        self.ended = False

    def read(self, size: int) -> bytes | bytearray:
        if size <= PIECE_BYTES:
            return self._read_piece(size)
        whole = bytearray()  # not allocated in advance, because the size in a broken message may be any number
        while len(whole) < size and not self.ended:
            whole += self._read_piece(min(PIECE_BYTES, size - len(whole)))
        return whole

    def _read_piece(self, size: int) -> bytes:
        try:
            data = self._body.read(size)
        except HTTPError as error:
            self._keep(getattr(error.__cause__, "partial", b""))
            raise
        self.ended = self.ended or len(data) < size
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]


def read_stream(body: Body) -> Iterator[pa.RecordBatch]:
    """Yield the batches of the stream, or one without rows if there are none: its columns have their types.

    A response with status 200 may still fail in the middle: the server writes its exception into the body, or the
    connection ends. Arrow's reader takes an end between two messages for the end of the stream, so the end-of-stream
    marker is checked. Raises Unavailable when the stream is incomplete, or the server's exception, translated.
    """
    recorder = _Recorder(body)
    try:
        with pa.ipc.open_stream(pa.PythonFile(recorder, "r")) as stream:
            empty = True
            for batch in stream:
                empty = False
                yield batch
            if empty:
                yield _make_empty(stream.schema)
        if recorder.ended or recorder.tail[-len(END_OF_STREAM) :] != END_OF_STREAM:
            raise _incomplete(recorder)
        if recorder.read(TAIL):
            raise _incomplete(recorder)
    except (HTTPError, OSError) as error:  # ArrowInvalid is a ValueError
        raise _incomplete(recorder) from error
    except pa.ArrowException as error:
        _drain(recorder)
        raise _incomplete(recorder) from error


def _make_empty(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without rows; made of nulls, because pyarrow imports pandas, if installed, for Python values."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, type_) for type_ in schema.types], schema=schema)


def _drain(recorder: _Recorder) -> None:
    """Read what follows a broken message, because the server's exception may be there."""
    for _ in range(16):
        if not recorder.read(TAIL):
            return


def _incomplete(recorder: _Recorder) -> Exception:
    return find_server_error(recorder.tail) or Unavailable("ClickHouse's response ended before it was complete")
