"""Reads an exported file back into columns and cells, by readers that the product does not write with.

CSV is read by a small parser of our own, since the csv module can't tell an empty field from an empty text; what both
see alike must be alike. Compression is the caller's to undo.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq

from tests.oracle.raw import exact_json, once


@dataclass(frozen=True)
class File:
    """What a file holds. `columns` is None where a format without a header has no rows to tell them from."""

    format: str
    columns: tuple[str, ...] | None
    rows: Sequence[dict[str, Any]]


def read(data: bytes, file_format: str) -> File:
    """Read a file of a format; raises ValueError or AssertionError if it is not one, LookupError without a reader."""
    match file_format:
        case "CSV":
            return _read_csv(data)
        case "JSON":
            return _of_objects("JSON", exact_objects(once(data.decode())))
        case "JSONL":
            text = once(data.decode())
            assert not text or text.endswith("\n"), "the last line is not ended"
            return _of_objects("JSONL", [exact_objects(line) for line in text.split("\n")[:-1]])
        case "PARQUET":
            table = pq.read_table(io.BytesIO(data))
            return File("PARQUET", tuple(table.column_names), _rows(table))
        case _:
            raise LookupError(f"no reader for {file_format}: add one here")


def _rows(table: Any) -> list[dict[str, Any]]:
    columns = [
        (name, [_once(cell) for cell in table.column(index).to_pylist()])
        for index, name in enumerate(table.column_names)
    ]
    return [{name: values[index] for name, values in columns} for index in range(table.num_rows)]


def _once(cell: Any) -> Any:
    return once(cell) if isinstance(cell, str) else cell


class Pairs(dict[str, Any]):
    """A JSON object that knows whether a name came twice."""

    doubled = False


def exact_objects(text: str) -> Any:
    """Parse JSON with every digit, and notice doubled names."""
    exact_json(text)
    return json.loads(text, parse_float=Decimal, object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    result = Pairs(pairs)
    result.doubled = len(result) < len(pairs)
    return result


def _of_objects(file_format: str, rows: list[Pairs]) -> File:
    assert not any(row.doubled for row in rows), "a row has two values of one name"
    columns = tuple(rows[0]) if rows else None
    assert all(tuple(row) == columns for row in rows), "rows differ in their columns"
    return File(file_format, columns, rows)


def _read_csv(data: bytes) -> File:
    text = once(data.decode())
    lines = list(_fields(text))
    blank = [[field or "" for field in line] for line in lines]
    assert blank == list(csv.reader(io.StringIO(text, newline=""), strict=True)), "the csv module reads it differently"
    assert lines, "no header"
    header = tuple(field or "" for field in lines[0])
    assert len(set(header)) == len(header), "two columns have one name"
    return File("CSV", header, [dict(zip(header, line, strict=True)) for line in lines[1:]])


def _fields(text: str) -> Iterator[list[str | None]]:
    """Yield the fields of each record of RFC 4180; one that is empty and not quoted is None."""
    position, record = 0, list[str | None]()
    while position < len(text):
        field, position = _field(text, position)
        record.append(field)
        if text.startswith(",", position):
            position += 1
            if position == len(text):
                record.append(None)
        else:
            assert text.startswith("\r\n", position), f"no end of record at character {position}"
            position += 2
            yield record
            record = []
    assert not record, "the last record is not ended"


def _field(text: str, position: int) -> tuple[str | None, int]:
    if not text.startswith('"', position):
        end = min(found for mark in (",", "\r\n") if (found := text.find(mark, position)) >= 0)
        return text[position:end] or None, end
    pieces = []
    while True:
        end = text.index('"', position + 1)
        pieces.append(text[position + 1 : end])
        if not text.startswith('"', end + 1):
            return '"'.join(pieces), end + 1
        position = end + 1
