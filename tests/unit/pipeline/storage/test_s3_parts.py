import asyncio
import io
import os
import tracemalloc
from unittest.mock import AsyncMock

import pytest
from aiohttp.payload import get_payload

from pipeline.storage import S3Options
from pipeline.storage.s3_parts import EVEN_PARTS, MAX_PARTS, Body, first_part_size, part_size

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize("first", [5 * MIB, 10 * MIB, 100 * MIB])
def test_the_first_attempt_holds_a_terabyte_in_parts_that_s3_allows(first: int) -> None:
    sizes = [part_size(number, first) for number in range(1, MAX_PARTS + 1)]
    assert sum(sizes) >= TIB
    assert max(sizes) <= 5 * GIB
    assert sizes[:EVEN_PARTS] == [first] * EVEN_PARTS


def test_the_setting_is_the_size_until_an_attempt_has_written_half_of_what_its_parts_hold() -> None:
    assert [first_part_size(10 * MIB, expected) for expected in (0, 1, 39 * GIB)] == [10 * MIB] * 3
    assert first_part_size(10 * MIB, 40 * GIB) == 11 * MIB
    assert first_part_size(int(12.5 * MIB), 0) == 13_107_200


@pytest.mark.parametrize("written", [79 * GIB, 500 * GIB, TIB, 2 * TIB])
def test_the_even_parts_of_the_next_attempt_hold_twice_what_was_written(written: int) -> None:
    size = first_part_size(10 * MIB, written)
    assert 2 * written <= size * EVEN_PARTS < 2 * written + EVEN_PARTS * MIB


def test_a_count_of_bytes_that_no_file_can_have_asks_for_no_larger_parts_than_s3_allows() -> None:
    assert first_part_size(10 * MIB, 2**63 - 1) == first_part_size(10 * MIB, 5 * TIB) < 2 * GIB


@pytest.mark.parametrize(
    ("attempts", "pauses"), [(None, (1.0, 2.0)), (1, ()), (2, (1.0,)), (3, (1.0, 2.0)), (5, (1.0, 2.0, 2.0, 2.0))]
)
def test_a_part_is_retried_as_often_as_asked_with_the_pauses_of_all_calls(
    attempts: int | None, pauses: tuple[float, ...]
) -> None:
    assert S3Options(pauses=(1.0, 2.0), part_attempts=attempts).part_pauses == pauses


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
        body = Body(pieces)
        asyncio.run(get_payload(body).write(writer))
        asyncio.run(get_payload(body).write(writer))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert bytes(sent) == CONTENT * 2
    assert most < MIB


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
