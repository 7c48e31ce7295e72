"""Writes a Parquet file one row group at a time, in memory that does not grow with the file."""

# pyarrow's writer keeps 1 to 2 KiB for each column of each row group until the file is complete. Here each row group
# has its own writer, and only its entry in the footer is kept: about 70 bytes for each column, compressed to a fifth.

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.buffer import Chunk, WriteBuffer

_MAGIC = b"PAR1"
_LENGTH_BYTES = 4
_CHUNK_BYTES = 1 << 20

# A footer is a struct in Thrift's compact protocol. After the schema come the number of rows and the row groups.
_GROUPS = 0x19  # the type of the field, and its distance from the field before
_STRUCTS = 0x0C  # the type of the list's items; its upper half has their number, if that is small
_LONG = 0xF0  # instead of the number, which follows then
_NO_GROUPS = bytes([0, _GROUPS, _STRUCTS])  # no rows in no row groups


class RowGroups:
    """Makes the same bytes as one writer of pyarrow with these options, to which the tables are written one by one.

    A context manager, because it has a file.
    """

    def __init__(self, schema: pa.Schema, **options: Any) -> None:
        self._schema = schema
        self._options = options
        # The offsets in the footer are those in the sink. Only in a file can a writer continue at an offset without
        # writing the bytes before it.
        self._scratch = os.memfd_create("row-group")
        self._position = len(_MAGIC)
        self._rows = self._count = self._entries_bytes = 0
        self._entries = WriteBuffer()
        self._compressor = pa.CompressedOutputStream(pa.PythonFile(self._entries, "w"), "zstd")
        self._start = 0
        try:
            _, self._empty = self._write([])
        except BaseException:
            os.close(self._scratch)
            raise

    def encode(self, tables: Iterator[pa.Table]) -> Iterator[Chunk]:
        """Yield the file: after each table that has rows its row group, and the footer at last."""
        yield _MAGIC
        for table in tables:
            if table.num_rows:
                yield self._add(table)
            del table  # before the next one is made
        yield from self._make_footer()

    def _add(self, table: pa.Table) -> bytes:
        """Return a row group, and keep its entry in the footer."""
        group, footer = self._write([table])
        self._start = self._start or _find_difference(self._empty, footer)
        begin = self._start + len(_encode_number(2 * table.num_rows)) + 2
        end = len(footer) - (len(self._empty) - self._start - len(_NO_GROUPS))
        self._compressor.write(footer[begin:end])
        self._entries_bytes += end - begin
        self._position += len(group)
        self._rows += table.num_rows
        self._count += 1
        return group

    def _write(self, tables: list[pa.Table]) -> tuple[bytes, bytes]:
        """Write a file of these tables; return its row groups, at the position that they have, and its footer."""
        with pa.OSFile(f"/proc/self/fd/{self._scratch}", "w") as sink:
            with pq.ParquetWriter(sink, self._schema, **self._options) as writer:
                os.lseek(sink.fileno(), self._position, os.SEEK_SET)
                for table in tables:
                    writer.write_table(table, row_group_size=table.num_rows)
            written = os.pread(self._scratch, sink.tell() - self._position, self._position)
        os.ftruncate(self._scratch, 0)
        size = int.from_bytes(written[-_LENGTH_BYTES - len(_MAGIC) : -len(_MAGIC)], "little")
        end = len(written) - _LENGTH_BYTES - len(_MAGIC)
        return written[: end - size], written[end - size : end]

    def _make_footer(self) -> Iterator[Chunk]:
        """Yield the footer with the entries of all row groups, its length, and the magic number."""
        start, end = self._empty[: self._start], self._empty[self._start :].removeprefix(_NO_GROUPS)
        if self._count:
            start += _encode_number(2 * self._rows) + bytes([_GROUPS]) + _encode_list(self._count)
        else:
            start, end = self._empty, b""
        yield start
        self._compressor.close()
        with pa.CompressedInputStream(pa.BufferReader(self._entries.take()), "zstd") as entries:
            while chunk := entries.read(_CHUNK_BYTES):
                yield chunk
        size = len(start) + self._entries_bytes + len(end)
        yield end + size.to_bytes(_LENGTH_BYTES, "little") + _MAGIC

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._scratch)


def _find_difference(one: bytes, other: bytes) -> int:
    """Return the place of the number of rows: where the footers of two files with the same columns begin to differ."""
    return next(place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)


def _encode_list(count: int) -> bytes:
    """Encode the head of a list of structs."""
    if count < _LONG >> 4:
        return bytes([count << 4 | _STRUCTS])
    return bytes([_LONG | _STRUCTS]) + _encode_number(count)


def _encode_number(value: int) -> bytes:
    """Encode a number that is not negative: seven bits in each byte, the lowest first."""
    encoded = bytearray()
    while value >> 7:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
