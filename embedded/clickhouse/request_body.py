"""Reads the body of an HTTP request in blocks, decoded and decompressed."""

import importlib
import zlib
from collections.abc import Iterator
from email.message import Message
from typing import BinaryIO, Protocol

from embedded.clickhouse import errors

BLOCK_BYTES = 1 << 20


class Decompressor(Protocol):
    """Called with each compressed block; raises when the data is not in its format."""

    def decompress(self, data: bytes) -> bytes:
        """Return the decompressed bytes of this block."""


def read_body(stream: BinaryIO, headers: Message) -> Iterator[bytes]:
    """Yield the blocks of the body, decoded according to the headers.

    Raises ServerError for an unknown encoding or corrupt data, and ConnectionError when the client disconnects.
    """
    chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
    raw = _read_chunks(stream) if chunked else _read_exactly(stream, int(headers.get("Content-Length") or 0))
    encoding = headers.get("Content-Encoding", "identity").lower()
    return raw if encoding == "identity" else _decompress(raw, encoding)


def _read_exactly(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        block = stream.read(min(length, BLOCK_BYTES))
        if not block:
            raise ConnectionResetError("the client disconnected within its request")
        length -= len(block)
        yield block


def _read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := _read_chunk_size(stream):
        yield from _read_exactly(stream, size)
        stream.readline()
    while stream.readline().strip():  # trailers
        pass


def _read_chunk_size(stream: BinaryIO) -> int:
    try:
        return int(stream.readline().split(b";")[0], 16)
    except ValueError:
        raise ConnectionResetError("the client disconnected within its request") from None


def _decompress(raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decompressor = _decompressor(encoding)
    for block in raw:
        try:
            data = decompressor.decompress(block)
        except Exception as error:  # each library raises its own errors
            raise errors.ServerError(
                errors.INCORRECT_DATA, f"The body is not {encoding}: {error}. (INCORRECT_DATA)"
            ) from error
        if data:
            yield data


def _decompressor(encoding: str) -> Decompressor:
    if encoding in {"gzip", "deflate"}:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects which of the two it is
    # clickhouse-connect requires both packages.
    library = {"lz4": ("lz4.frame", "LZ4FrameDecompressor"), "zstd": ("backports.zstd", "ZstdDecompressor")}
    if encoding not in library:
        raise errors.ServerError(
            errors.NOT_IMPLEMENTED,
            f"Unknown Content-Encoding '{encoding}', use gzip, deflate, lz4 or zstd. (NOT_IMPLEMENTED)",
        )
    module, name = library[encoding]
    decompressor: Decompressor = getattr(importlib.import_module(module), name)()
    return decompressor
