import random
import struct
from typing import Any

import aiokafka.consumer.fetcher
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import kafka_codecs, kafka_records
from runtime.kafka_records import Record, RecordBatches, Unreadable, install
from tests.support.kafka_raw import (
    BAD_NAME,
    CODECS,
    GZIP,
    SNAPPY,
    ZSTD,
    batch,
    compress,
    crc32c,
    frame,
    record,
    varint,
    with_length,
)

BAD = [(BAD_NAME, b"x")]


def at(base: int, data: bytes) -> bytes:
    """Give a batch its first offset, as a broker does."""
    return struct.pack(">q", base) + data[8:]


def read(data: bytes) -> list[Record]:
    """Read like aiokafka's fetcher, which has fetched from the first offset."""
    batches, found = RecordBatches(data), []
    while batches.has_next():
        one = batches.next_batch()
        assert one is not None
        assert one.validate_crc()
        found += [] if one.is_control_batch else list(one)
    return found


def lost(data: bytes) -> list[tuple[int, int, str]]:
    """Return the first and last offset, and the content, of what can't be decoded."""
    return [(r.value.first, r.offset, r.value.content) for r in read(data) if isinstance(r.value, Unreadable)]


def good(data: bytes) -> list[tuple[int, bytes | None]]:
    return [(each.offset, each.value) for each in read(data) if not isinstance(each.value, Unreadable)]


def reason(data: bytes) -> str:
    (found,) = [each.value.reason for each in read(data) if isinstance(each.value, Unreadable)]
    return found


def test_the_checksum_of_the_tests_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_records_are_read_with_every_codec(codec: int) -> None:
    records = [record(b"a", key=b"k", headers=[(b"n", b"v"), (b"null", None)]), record(None, 1, key=None)]

    first, second = read(at(7, batch(records, codec=codec, timestamp=5)))

    assert first == Record(7, 5, 0, b"k", b"a", (("n", b"v"), ("null", None)))
    assert second == Record(8, 5, 0, None, None, ())


def test_snappy_is_read_as_java_writes_it() -> None:
    halves = [record(b"a" * 100), record(b"b" * 100, 1)]
    blocks = [compress(SNAPPY, each) for each in halves]
    body = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">I", len(b)) + b for b in blocks)

    assert good(batch(halves, codec=SNAPPY, body=body)) == [(0, b"a" * 100), (1, b"b" * 100)]


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_a_header_name_that_is_not_utf_8_hides_no_other_record(codec: int) -> None:
    data = at(40, batch([record(b"a"), record(b"bad", 1, headers=BAD), record(b"c", 2)], codec=codec))

    assert good(data) == [(40, b"a"), (42, b"c")]
    assert lost(data) == [(41, 41, "value")]
    (bad,) = [each for each in read(data) if isinstance(each.value, Unreadable)]
    assert (bad.key, bytes(bad.value or b""), bad.headers) == (b"key", b"bad", ((r"\xff\xfe\xc3(", b"x"),))
    assert "header is not UTF-8" in reason(data)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (b"\0\0\2" + varint(2**31 - 1) + b"abc", "2147483647 bytes follow, but 3 do"),
        (b"\0\0\2" + varint(-1) + varint(1) + b"v" + varint(-1), "-1 headers"),
        (b"\0\0\2" + varint(-1) + varint(1) + b"v" + varint(10**6), "1000000 headers"),
        (b"\0\0\2" + varint(-1) + varint(1) + b"v" + varint(1) + varint(-1), "-1 bytes follow"),
        (b"\0\0\2" + varint(-1) + varint(1) + b"v" + varint(0) + b"junk", "4 bytes too many"),
        (b"\0" + b"\xff" * 11, "more than 64 bits"),
        (b"\0", "ends too early"),
        (b"", "ends too early"),
        (b"\0\0" + varint(9) + varint(-1) * 2 + varint(0), "offset is 9, which is not in order"),
        (b"\0\0" + varint(0) + varint(-1) * 2 + varint(0), "offset is 0, which is not in order"),
        (b"\0\0" + varint(-4) + varint(-1) * 2 + varint(0), "offset is -4, which is not in order"),
    ],
)
def test_a_damaged_record_hides_no_other_record(fields: bytes, why: str) -> None:
    data = batch([record(b"a"), with_length(fields), record(b"c", 2)])

    assert good(data) == [(0, b"a"), (2, b"c")]
    assert lost(data) == [(1, 1, "record")]
    assert why in reason(data)


@pytest.mark.parametrize("length", [varint(500), varint(-3), b"\xff" * 9 + b"\x01", b"\xff" * 30])
def test_behind_a_wrong_length_the_rest_of_the_batch_is_unreadable(length: bytes) -> None:
    data = batch([record(b"a"), length + b"torn", record(b"c", 2)])

    assert (good(data), lost(data)) == ([(0, b"a")], [(1, 2, "batch")])


def test_records_that_the_batch_only_promises_are_unreadable() -> None:
    data = batch([record(b"a")], count=4)

    assert (good(data), lost(data)) == ([(0, b"a")], [(1, 3, "batch")])


def test_records_that_the_batch_does_not_count_are_unreadable() -> None:
    data = batch([record(b"a"), record(b"b", 1)], count=1, last_offset_delta=1)

    assert (good(data), lost(data)) == ([(0, b"a")], [(1, 1, "batch")])


def test_records_that_compaction_removed_are_not_missed() -> None:
    batches = at(10, batch([record(b"b", 2)], last_offset_delta=5)) + at(16, batch([record(b"c")]))

    assert (good(batches), lost(batches)) == ([(12, b"b"), (16, b"c")], [])
    first = RecordBatches(batches).next_batch()
    assert first is not None
    assert first.next_offset == 16


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ({"crc": 1}, "the checksum of the batch is wrong"),
        ({"codec": 6}, "the compression codec 6 is unknown"),
        ({"magic": 3}, "the record format 3 is unknown"),
        ({"magic": 1}, "the batch is damaged"),
        ({"codec": GZIP, "body": b"garbage"}, "the batch can't be decompressed"),
        ({"codec": SNAPPY, "body": b"garbage"}, "the batch can't be decompressed"),
        ({"codec": ZSTD, "body": b"garbage"}, "the batch can't be decompressed"),
        ({"last_offset_delta": -5}, "ends before it begins"),
    ],
)
def test_a_damaged_batch_ends_where_the_next_begins(damage: dict[str, Any], why: str) -> None:
    damaged = at(20, batch([record(b"a"), record(b"b", 1)], **damage))
    data = at(19, batch([record(b"before")])) + damaged + at(22, batch([record(b"after")]))

    assert good(data) == [(19, b"before"), (22, b"after")]
    assert lost(data) == [(20, 21, "batch")]
    assert why in reason(data)


def test_a_batch_that_claims_the_offsets_of_the_next_one_does_not_hide_it() -> None:
    data = batch([record(b"a")], last_offset_delta=2**31 - 1) + at(1, batch([record(b"b")]))

    assert (good(data), lost(data)) == ([(0, b"a"), (1, b"b")], [])


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_decompresses_to_too_much_is_unreadable(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_codecs, "MAX_BYTES", 1 << 20)
    data = batch([record(b"0" * (2 << 20))], codec=codec)

    assert (good(data), lost(data)) == ([], [(0, 0, "batch")])
    assert "decompresses to more than 1 MiB" in reason(data)


def test_control_batches_have_no_records() -> None:
    data = batch([record(b"x")], attributes=0x20) + at(1, batch([record(b"a")]))

    assert read(data) == read(data)[-1:]
    assert good(data) == [(1, b"a")]


def test_an_incomplete_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    whole = batch([record(b"a")])

    assert good(whole + at(1, batch([record(b"b")]))[:-1]) == [(0, b"a")]
    assert not RecordBatches(whole[:-1]).has_next()
    assert not RecordBatches(b"").has_next()


@given(st.data(), st.sampled_from([0, *CODECS]))
def test_no_damage_of_a_batch_raises_or_reaches_another_batch(data: st.DataObject, codec: int) -> None:
    records = [record(b"value %d" % n, n, headers=[(b"name", b"x")]) for n in range(4)]
    content = batch(records, codec=codec)[21:] if data.draw(st.booleans()) else batch(records)[21:]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(40, len(damaged))) :]
    middle = at(5, frame(bytes(damaged)))
    everything = at(4, batch([record(b"before")])) + middle + at(9, batch([record(b"after")]))

    found = read(everything)

    offsets = [each.offset for each in found]
    assert offsets == sorted(set(offsets))
    assert set(offsets) <= set(range(4, 10))
    assert {(4, b"before"), (9, b"after")} <= {(each.offset, each.value) for each in found}


def test_any_bytes_end_the_reading() -> None:
    source = random.Random(7)

    for _ in range(2000):
        read(source.randbytes(source.randrange(200)))


def test_aiokafka_reads_with_this_module_or_the_daemon_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka.consumer.fetcher, "MemoryRecords", object)
    install()
    assert aiokafka.consumer.fetcher.MemoryRecords is kafka_records.RecordBatches

    monkeypatch.delattr(aiokafka.consumer.fetcher, "MemoryRecords")
    with pytest.raises(RuntimeError, match="this version of aiokafka is unknown"):
        install()
