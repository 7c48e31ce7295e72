import gzip
import io
import random
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.buffer import Chunk
from pipeline.compress import COMPRESSORS
from pipeline.types import CODECS

DATA = random.Random(1).randbytes(3_000_000) + b"the same " * 1_000_000


def chunks(data: bytes, size: int) -> Iterator[Chunk]:
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield view[start : start + size]


@pytest.mark.parametrize("size", [1_000, 1_000_000, 100_000_000])
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_gzip_is_one_member_that_holds_it_all(data: bytes, size: int) -> None:
    packed = b"".join(COMPRESSORS["gzip"](chunks(data, size)))
    with gzip.open(io.BytesIO(packed)) as file:
        assert file.read() == data
    assert packed.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 1


@pytest.mark.parametrize("size", [1_000, 1_000_000, 100_000_000])
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_zstd_is_one_frame_that_holds_it_all(data: bytes, size: int) -> None:
    packed = b"".join(COMPRESSORS["zstd"](chunks(data, size)))
    assert pa.input_stream(pa.BufferReader(packed), compression="zstd").read() == data
    assert packed[:4] == b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_what_can_be_packed_is_packed(name: str) -> None:
    packed = b"".join(COMPRESSORS[name](chunks(DATA, 1_000_000)))
    assert len(packed) < len(DATA) / 3


@pytest.mark.parametrize("name", list(CODECS))
def test_pieces_come_while_more_is_written(name: str) -> None:
    taken = 0

    def endless() -> Iterator[Chunk]:
        nonlocal taken
        while True:
            taken += 1
            yield random.Random(taken).randbytes(1_000_000)

    pieces = COMPRESSORS[name](endless())
    assert sum(len(next(pieces)) for _ in range(5))
    assert taken < 50
