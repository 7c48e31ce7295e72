"""Writes Kafka records byte by byte, below every client library: record batches, and the Produce request.

Only what tests need: message format 2, one broker that leads every partition, no security.
"""

import gzip
import itertools
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pyarrow as pa

PRODUCE, PRODUCE_VERSION = 0, 7
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
BAD_NAME = b"\xff\xfe\xc3\x28"
"""The name of a header that is not UTF-8."""

COVERED = 21
"""Where the part of a batch begins that its checksum covers."""

ANSWER_SECONDS = 30.0
_numbers = itertools.count(1)
_HEADER = struct.Struct(">hiqqqhii")
"""Attributes, last offset delta, first and last timestamp, producer id and epoch, first sequence, number of records."""

_TABLE = [0] * 256
for _byte in range(256):
    _rest = _byte
    for _ in range(8):
        _rest = (_rest >> 1) ^ (0x82F63B78 if _rest & 1 else 0)
    _TABLE[_byte] = _rest

Header = tuple[bytes, bytes | None]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) checksum."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = (checksum >> 8) ^ _TABLE[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Encode a signed number of any size as a zigzag varint."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def record(
    value: bytes | None,
    offset_delta: int = 0,
    *,
    key: bytes | None = b"key",
    headers: Sequence[Header] = (),
    timestamp_delta: int = 0,
) -> bytes:
    """Return a record with its length."""
    fields = varint(timestamp_delta) + varint(offset_delta) + _sized(key) + _sized(value) + varint(len(headers))
    return with_length(b"\0" + fields + b"".join(_sized(name) + _sized(content) for name, content in headers))


def with_length(fields: bytes) -> bytes:
    """Put the length before the fields of a record."""
    return varint(len(fields)) + fields


def batch(
    records: Sequence[bytes],
    *,
    codec: int = 0,
    attributes: int = 0,
    count: int | None = None,
    last_offset_delta: int | None = None,
    magic: int = 2,
    crc: int | None = None,
    timestamp: int | None = None,
    body: bytes | None = None,
) -> bytes:
    """Return a record batch; what is not given is as a correct client writes it.

    `body` replaces the (compressed) bytes of the records.
    """
    number = len(records) if count is None else count
    last = max(number - 1, 0) if last_offset_delta is None else last_offset_delta
    now = int(time.time() * 1000) if timestamp is None else timestamp
    packed = compress(codec, b"".join(records)) if body is None else body
    content = _HEADER.pack(attributes | codec, last, now, now, -1, -1, -1, number) + packed
    return frame(content, magic=magic, crc=crc)


def frame(content: bytes, *, magic: int = 2, crc: int | None = None, base_offset: int = 0) -> bytes:
    """Put offset, length, leader epoch, magic and checksum before the part of a batch that the checksum covers."""
    checksum = crc32c(content) if crc is None else crc
    return struct.pack(">qiibI", base_offset, len(content) + 9, -1, magic, checksum) + content


def compress(codec: int, data: bytes) -> bytes:
    """Compress with one of Kafka's codecs; other numbers leave the data as it is."""
    if codec not in CODECS:
        return data
    if codec == GZIP:
        return gzip.compress(data)
    if codec == SNAPPY:
        return bytes(pa.compress(data, "snappy", asbytes=True))
    if codec == LZ4:
        return _lz4(data)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, CODECS[codec]) as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


def mutate_batch(random: Random) -> bytes:
    """Return a batch of a few records with some bytes changed, and a checksum that is right again."""
    codec = random.choice([0, 0, 0, *CODECS])
    names = [b"name", BAD_NAME, b"", b"\xc3", b"traceparent"]
    records = [
        record(
            random.choice([None, b"", b"x" * random.randrange(300), b'{"projectId": 1}']),
            number,
            key=random.choice([None, b"", b"key"]),
            headers=[(random.choice(names), random.choice([None, b"v"])) for _ in range(random.randrange(4))],
            timestamp_delta=random.choice([0, 0, 1, -5, 1 << 40, -(1 << 40)]),
        )
        for number in range(random.randint(1, 6))
    ]
    attributes = random.choice([0, 0, 0, 0x08, 0x4000, 0x20, 0x10])
    content = bytearray(batch(records, codec=codec, attributes=attributes)[COVERED:])
    for _ in range(random.choice([0, 1, 1, 2, 5])):
        content[random.randrange(len(content))] = random.randrange(256)
    data = frame(bytes(content))
    assert struct.unpack_from(">I", data, COVERED - 4) == (crc32c(bytes(content)),)
    return data


@dataclass(frozen=True)
class Produced:
    """The broker's response: 0 or an error code, and the offset of the first record."""

    error: int
    offset: int


def produce(bootstrap: str, topic: str, partition: int, batches: bytes) -> Produced:
    """Send batches to a partition; ConnectionError when the broker closes the connection instead of answering."""
    name = topic.encode()
    request = struct.pack(">hhi", -1, -1, int(ANSWER_SECONDS * 1000))
    request += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iii", 1, partition, len(batches)) + batches
    number = next(_numbers)
    client = b"kafka_raw"
    message = struct.pack(">hhih", PRODUCE, PRODUCE_VERSION, number, len(client)) + client + request
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(message)) + message)
        (size,) = struct.unpack(">i", _receive(connection, 4))
        answer = _receive(connection, size)
    assert struct.unpack_from(">i", answer) == (number,)
    start = 4 + 4 + 2 + len(name) + 4
    _, error, offset = struct.unpack_from(">ihq", answer, start)
    return Produced(error, offset)


def _lz4(data: bytes) -> bytes:
    """Return an LZ4 frame of stored blocks that don't refer to each other: Kafka refuses frames with linked blocks."""
    blocks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
    stored = b"".join(struct.pack("<I", len(block) | 1 << 31) + block for block in blocks)
    return b"\x04\x22\x4d\x18\x60\x40\x82" + stored + bytes(4)


def _sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        if not (part := connection.recv(size - len(received))):
            raise ConnectionError("the broker closed the connection")
        received += part
    return bytes(received)
