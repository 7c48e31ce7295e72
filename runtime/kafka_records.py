"""Decodes what a broker returns record by record, so that a record that can't be decoded does not hide the others."""

# aiokafka alone raises at such a record before Faust sees it, and starts again at the same offset, forever. It also
# lacks the codecs snappy, LZ4 and zstd, and believes offsets that a batch can't contain.

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from runtime.kafka_codecs import CODEC_BITS, MAX_BYTES, decompress
from runtime.kafka_fields import Headers, Reader, Undecodable, read_content

Content = Literal["value", "record", "batch"]

_PREFIX = struct.Struct(">qi")
"""The first offset, and the number of bytes after it."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""First offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id,
producer epoch, first sequence, number of records."""

_MAGIC = 16
_ATTRIBUTES = 21
_SMALLEST = 14
"""The length of the smallest message of the oldest format."""

_CURRENT = 2
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20


class Unreadable(bytes):
    """The value of the record that stands for records which can't be decoded.

    The bytes are the value of one record, one whole record, or (a part of) a batch, as `content` says. `first` is the
    first offset that it stands for; the record has the last one.
    """

    reason: str
    first: int
    content: Content

    def __new__(cls, data: bytes, *, reason: str, first: int, content: Content) -> Self:
        """Keep the bytes and describe them."""
        made = super().__new__(cls, data)
        made.reason, made.first, made.content = reason, first, content
        return made


@dataclass(frozen=True)
class Record:
    """A record as aiokafka's fetcher expects it; times are Unix milliseconds."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    checksum: None = None


def install() -> None:
    """Make aiokafka read batches with this module; raises RuntimeError when its fetcher is not the one known here."""
    if not hasattr(fetcher, "MemoryRecords"):
        raise RuntimeError("this version of aiokafka is unknown: install the version that requirements.lock names")
    fetcher.MemoryRecords = RecordBatches


class RecordBatches:
    """The batches of one partition in one response; it stands in for aiokafka's MemoryRecords."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = 0

    def size_in_bytes(self) -> int:
        """Return the number of bytes received."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether there is a complete batch; a response may end in the middle of one."""
        return self._end() is not None

    def next_batch(self) -> "Batch | None":
        """Return the next batch, or None after the last complete one."""
        end = self._end()
        if end is None:
            return None
        data, self._start = self._data[self._start : end], end
        return Batch(data, following=self._next_offset())

    def _end(self) -> int | None:
        if len(self._data) - self._start < _PREFIX.size + _SMALLEST:
            return None
        _, length = _PREFIX.unpack_from(self._data, self._start)
        if length < _SMALLEST:
            return len(self._data)  # nothing behind a wrong length can be found
        end = self._start + _PREFIX.size + int(length)
        return end if end <= len(self._data) else None

    def _next_offset(self) -> int | None:
        if len(self._data) - self._start < _PREFIX.size:
            return None
        following, _ = _PREFIX.unpack_from(self._data, self._start)
        return int(following)


@dataclass(frozen=True)
class _Fields:
    attributes: int
    last_offset: int
    first_timestamp: int
    last_timestamp: int
    producer_id: int | None
    count: int


class Batch:
    """One batch; iterating it never raises: what can't be decoded becomes a record whose value is `Unreadable`.

    `following` is the first offset of the next batch, if that is known: the end of a batch that is damaged.
    """

    def __init__(self, data: bytes, following: int | None) -> None:
        self._data = data
        base_offset, length = _PREFIX.unpack_from(data)
        self.base_offset = int(base_offset)
        self._magic = data[_MAGIC]
        self._legacy = self._magic < _CURRENT and length >= _SMALLEST
        self._problem = self._check()
        self._fields = self._read_fields() if self._problem is None else _Fields(0, self._guess_last(), 0, 0, None, 0)
        if following is not None:
            last = following - 1 if self._problem else min(following - 1, self._fields.last_offset)
            self._fields = replace(self._fields, last_offset=max(last, self.base_offset))

    @property
    def next_offset(self) -> int:
        """The offset after the batch."""
        return self._fields.last_offset + 1

    @property
    def producer_id(self) -> int | None:
        """The id of an idempotent producer."""
        return self._fields.producer_id

    @property
    def is_control_batch(self) -> bool:
        """Whether the batch marks the end of a transaction and has no records."""
        return bool(self._fields.attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self._fields.attributes & _TRANSACTIONAL)

    def validate_crc(self) -> bool:
        """Return True: a wrong checksum makes the records of the batch unreadable, and no error."""
        return True

    def __iter__(self) -> Iterator[Record]:
        """Yield records with increasing offsets, all within the batch."""
        if self._problem is not None:
            yield self._unreadable(self._data, self._problem, self.base_offset, self._fields.last_offset, "batch")
            return
        try:
            records = self._decode_legacy() if self._legacy else self._decode(self._unpack())
        except Undecodable as error:
            yield self._unreadable(self._data, str(error), self.base_offset, self._fields.last_offset, "batch")
            return
        yield from records

    def _check(self) -> str | None:
        """Return what is wrong with the batch as a whole."""
        try:
            if self._legacy:
                sound = LegacyRecordBatch(self._data, self._magic).validate_crc()
            elif self._magic != _CURRENT:
                return f"the record format {self._magic} is unknown"
            elif len(self._data) < _HEADER.size:
                return f"the batch has only {len(self._data)} bytes"
            else:
                sound = DefaultRecordBatch(self._data).validate_crc()
        except Exception as error:  # noqa: BLE001 (aiokafka raises anything)
            return f"the batch is damaged: {error}"
        if not sound:
            return "the checksum of the batch is wrong"
        if self._read_fields().last_offset < self.base_offset:
            return "the batch ends before it begins"
        return None

    def _read_fields(self) -> _Fields:
        if self._legacy:
            return _Fields(0, self.base_offset, 0, 0, None, 0)
        _, _, _, _, _, attributes, delta, first, last, producer, _, _, count = _HEADER.unpack_from(self._data)
        return _Fields(attributes, self.base_offset + delta, first, last, producer, count)

    def _guess_last(self) -> int:
        """Return the last offset of a damaged batch, if its numbers agree, or else its first."""
        if self._legacy or len(self._data) < _HEADER.size:
            return self.base_offset
        fields = self._read_fields()
        span = fields.last_offset - self.base_offset + 1
        return fields.last_offset if 0 < span == fields.count <= MAX_BYTES else self.base_offset

    def _unpack(self) -> bytes:
        """Return the records of the batch, decompressed; raises Undecodable."""
        return decompress(self._fields.attributes & CODEC_BITS, self._data[_HEADER.size :])

    def _decode_legacy(self) -> list[Record]:
        try:
            found = list(LegacyRecordBatch(self._data, self._magic))
        except Exception as error:
            raise Undecodable(f"the message can't be decoded: {error}") from error
        return [Record(r.offset, r.timestamp or 0, r.timestamp_type or 0, r.key, r.value, ()) for r in found]

    def _decode(self, body: bytes) -> Iterator[Record]:
        """Decode the records one by one; offsets that no record accounts for belong to one unreadable record."""
        fields, last, reader = self._fields, self.base_offset - 1, Reader(body)
        for left in range(min(fields.count, fields.last_offset - last), 0, -1):
            try:
                raw = reader.take(reader.read_varint())
            except Undecodable as error:
                if last < fields.last_offset:
                    yield self._unreadable(body[reader.start :], str(error), last + 1, fields.last_offset, "batch")
                return
            record = self._decode_record(raw, last, fields.last_offset - left + 1)
            last = record.offset
            yield record
        if (rest := body[reader.position :]) and last < fields.last_offset:
            reason = f"the batch says that it has {fields.count} records, but there are more bytes"
            yield self._unreadable(rest, reason, last + 1, fields.last_offset, "batch")

    def _decode_record(self, raw: bytes, after: int, at_most: int) -> Record:
        """Decode one record, whose offset must be greater than `after` and `at_most` that, or make it unreadable."""
        offset = min(after + 1, at_most)
        try:
            reader = Reader(raw, position=1)
            timestamp = self._fields.first_timestamp + reader.read_varint()
            found = self.base_offset + reader.read_varint()
            key, value, headers, reason = read_content(reader)
        except Undecodable as error:
            return self._unreadable(raw, str(error), offset, offset, "record")
        if not after < found <= at_most:
            reason = f"the record says that its offset is {found}, which is not in order"
            return self._unreadable(raw, reason, offset, offset, "record")
        offset = found
        if reason is not None:
            content: Content = "record" if value is None else "value"
            kept = Unreadable(raw if value is None else value, reason=reason, first=offset, content=content)
            return self._record(offset, timestamp, key, kept, headers)
        return self._record(offset, timestamp, key, value, headers)

    def _record(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> Record:
        kind = int(bool(self._fields.attributes & _LOG_APPEND_TIME))
        return Record(offset, self._fields.last_timestamp if kind else timestamp, kind, key, value, headers)

    def _unreadable(self, data: bytes, reason: str, first: int, last: int, content: Content) -> Record:
        value = Unreadable(data, reason=reason, first=first, content=content)
        return Record(last, self._fields.last_timestamp, 0, None, value, ())
