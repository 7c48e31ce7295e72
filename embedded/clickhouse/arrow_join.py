"""Joins Arrow IPC streams of one schema into a single stream; it is tested without the engine."""

from collections.abc import Iterator

CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + b"\x00\x00\x00\x00"


def join_streams(streams: Iterator[memoryview]) -> Iterator[memoryview | bytes]:
    """Yield the schema of the first stream, the other messages of all streams, then one end-of-stream marker.

    Nothing is parsed or copied: a schema message is its length prefix and that many bytes, with no body.
    Raises ValueError if an item is not a complete IPC stream.
    """
    first = True
    for stream in streams:
        if stream[:4] != CONTINUATION or stream[-8:] != END_OF_STREAM:
            raise ValueError("a block of the response is not a complete Arrow IPC stream")
        schema_end = 8 + int.from_bytes(stream[4:8], "little")
        yield stream[0 if first else schema_end : -8]
        first = False
    yield END_OF_STREAM
