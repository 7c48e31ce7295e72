"""Decompresses Kafka's record batches up to a size; pyarrow, which aiokafka does not use, has the codecs it lacks."""

import gzip
import io
import struct
from collections.abc import Iterator

from runtime.kafka_fields import Undecodable

CODEC_BITS = 0x07
MAX_BYTES = 64 * 1024 * 1024
"""No batch of requests or completions is as large: a small batch that decompresses to more must not fill the memory."""

_GZIP, _SNAPPY = 1, 2
_NAMES = {_GZIP: "gzip", _SNAPPY: "snappy", 3: "lz4", 4: "zstd"}
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16
"""The length of the header of Java's snappy streams: the mark above, and two numbers."""


def decompress(codec: int, data: bytes) -> bytes:
    """Decompress the records of a batch; raises Undecodable, also for more than MAX_BYTES."""
    if codec == 0:
        return data
    if codec not in _NAMES:
        raise Undecodable(f"the compression codec {codec} is unknown")
    try:
        unpacked = _decompress_snappy(data) if codec == _SNAPPY else _read_stream(_NAMES[codec], data)
    except Undecodable:
        raise
    except Exception as error:
        # gzip and pyarrow raise different errors for damaged data, and struct for data that is too short.
        raise Undecodable(f"the batch can't be decompressed ({type(error).__name__}: {error})") from error
    if len(unpacked) > MAX_BYTES:
        raise _too_large()
    return unpacked


def _read_stream(codec: str, data: bytes) -> bytes:
    if codec == _NAMES[_GZIP]:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
    import pyarrow as pa

    with pa.input_stream(pa.BufferReader(data), compression=codec) as stream:
        return bytes(stream.read(MAX_BYTES + 1))


def _decompress_snappy(data: bytes) -> bytes:
    import pyarrow as pa

    unpacked, size = [], 0
    for block in _snappy_blocks(data):
        size += (length := _snappy_length(block))
        if size > MAX_BYTES:
            raise _too_large()
        unpacked.append(pa.decompress(block, decompressed_size=length, codec="snappy", asbytes=True))
    return b"".join(unpacked)


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """Yield the blocks of a stream as Java writes it; librdkafka writes one block without a header."""
    if not data.startswith(_XERIAL):
        yield data
        return
    position = _XERIAL_HEADER
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 4 + length]
        position += 4 + length


def _snappy_length(block: bytes) -> int:
    """Return the decompressed length, with which a block begins."""
    length = 0
    for shift, byte in zip(range(0, 35, 7), block, strict=False):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 (the bit that says that more bytes follow)
            break
    return length


def _too_large() -> Undecodable:
    return Undecodable(f"the batch decompresses to more than {MAX_BYTES >> 20} MiB")
