"""Joins Arrow IPC streams of one schema, end to end, into a single stream."""

from collections.abc import Iterator

CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + b"\x00\x00\x00\x00"


def joined(streams: Iterator[memoryview]) -> Iterator[memoryview | bytes]:
    """Give the messages of all streams after the schema of the first, then one end-of-stream marker.

    Nothing is parsed or copied: a schema message is its length prefix and that many bytes, with no body.
    Raises ValueError when a piece is not a whole IPC stream.
    """
    first = True
    for stream in streams:
        if stream[:4] != CONTINUATION or stream[-8:] != END_OF_STREAM:
            raise ValueError("a piece of the answer is not a whole Arrow IPC stream")
        schema_end = 8 + int.from_bytes(stream[4:8], "little")
        yield stream[0 if first else schema_end : -8]
        first = False
    yield END_OF_STREAM
