import asyncio
import io
import os
import tracemalloc
from unittest.mock import AsyncMock

import pytest
from aiohttp.payload import get_payload

from pipeline.storage.s3_body import Body

MIB = 1 << 20
CONTENT = bytes(range(256)) * (8 * MIB // 256)
PIECES = [CONTENT[:1], CONTENT[1:1], CONTENT[1:700_000], CONTENT[700_000:]]


def test_a_body_is_sent_without_a_copy_of_it_and_again_if_the_request_is_repeated() -> None:
    writer, sent, place = AsyncMock(), bytearray(2 * len(CONTENT)), 0

    async def write(piece: bytes) -> None:
        nonlocal place
        sent[place : place + len(piece)] = piece
        place += len(piece)

    writer.write = write
    pieces = list(PIECES)
    tracemalloc.start()
    try:
        payload = get_payload(Body(pieces))
        for _ in range(2):
            asyncio.run(payload.write(writer))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert bytes(sent) == CONTENT * 2
    assert most < MIB
    assert (payload.size, payload.consumed) == (len(CONTENT), False)


@pytest.mark.parametrize("size", [1, 1000, 699_999, MIB, 8 * MIB, 9 * MIB])
def test_a_body_is_read_as_a_file_is(size: int) -> None:
    body, file = Body(PIECES), io.BytesIO(CONTENT)
    assert len(body) == len(CONTENT)
    for _ in range(3):
        assert (body.read(size), body.tell()) == (file.read(size), file.tell())
    for offset, whence in ((5, os.SEEK_SET), (3, os.SEEK_CUR), (-7, os.SEEK_END), (0, os.SEEK_END)):
        assert body.seek(offset, whence) == file.seek(offset, whence) == body.tell()
        assert body.read(10) == file.read(10)
    body.seek(2)
    assert body.read() == CONTENT[2:]
    assert body.read() == body.read(5) == b""
    assert b"".join(body.cut()) == CONTENT


def test_a_body_without_content_is_false_because_the_client_signs_none_then() -> None:
    body = Body([])
    assert not body
    assert body.read() == b""
    assert list(body.cut()) == []
