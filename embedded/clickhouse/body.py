"""Reads the body of an HTTP request in pieces, unchunked and decompressed."""

import importlib
import zlib
from collections.abc import Iterator
from email.message import Message
from typing import BinaryIO, Protocol

from embedded.clickhouse import errors

PIECE = 1 << 20


class Decompressor(Protocol):
    """Called with each compressed piece; raises when the bytes are not of its kind."""

    def decompress(self, data: bytes) -> bytes:
        """Return what this piece adds."""


def pieces(stream: BinaryIO, headers: Message) -> Iterator[bytes]:
    """Read the body, decoded as the headers say.

    Raises ServerError for an unknown encoding or damaged data, and ConnectionError when the client goes away.
    """
    chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
    raw = _chunks(stream) if chunked else _counted(stream, int(headers.get("Content-Length") or 0))
    encoding = headers.get("Content-Encoding", "identity").lower()
    return raw if encoding == "identity" else _decompressed(raw, encoding)


def _counted(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        piece = stream.read(min(length, PIECE))
        if not piece:
            raise ConnectionResetError("the client went away in the middle of its request")
        length -= len(piece)
        yield piece


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := _chunk_size(stream):
        yield from _counted(stream, size)
        stream.readline()
    while stream.readline().strip():  # trailers
        pass


def _chunk_size(stream: BinaryIO) -> int:
    try:
        return int(stream.readline().split(b";")[0], 16)
    except ValueError:
        raise ConnectionResetError("the client went away in the middle of its request") from None


def _decompressed(raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decompressor = _decompressor(encoding)
    for piece in raw:
        try:
            data = decompressor.decompress(piece)
        except Exception as error:  # each library raises its own
            raise errors.ServerError(
                errors.INCORRECT_DATA, f"The body is not {encoding}: {error}. (INCORRECT_DATA)"
            ) from error
        if data:
            yield data


def _decompressor(encoding: str) -> Decompressor:
    if encoding in {"gzip", "deflate"}:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # tells the two apart by itself
    # clickhouse-connect brings both of these for its own side.
    library = {"lz4": ("lz4.frame", "LZ4FrameDecompressor"), "zstd": ("backports.zstd", "ZstdDecompressor")}
    if encoding not in library:
        raise errors.ServerError(
            errors.NOT_IMPLEMENTED,
            f"Unknown Content-Encoding '{encoding}', use gzip, deflate, lz4 or zstd. (NOT_IMPLEMENTED)",
        )
    module, name = library[encoding]
    decompressor: Decompressor = getattr(importlib.import_module(module), name)()
    return decompressor
