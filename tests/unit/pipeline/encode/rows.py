"""Rows with every awkward value, as a reader hands them over."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from pipeline.encode import ENCODERS
from pipeline.types import JSON_FLAG, Column, Kind, OutputOptions, choose_encoding

CONTROLS = "".join(map(chr, range(0x20)))
AWKWARD = [
    "",
    None,
    "null",
    "plain",
    " both ends ",
    'quote " comma , semicolon ;',
    "line\nfeed",
    "carriage\rreturn",
    "both\r\n",
    CONTROLS,
    "\x7f\x80\x85\u2028\u2029\ufeff\uffff",
    "é 你好 😀 👩\u200d👩\u200d👧 e\u0301 \u202eright to left",
    r"C:\users\u0041 \\u0041 \n \" \ud83d",
    "{not json}",
    "</script><b>&amp;",
    "x" * 100_000,
]

TYPES: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.string(),
    Kind.BOOL: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.DECIMAL: pa.decimal128(38, 12),
    Kind.INSTANT: pa.timestamp("ms", tz="UTC"),
    Kind.JSON: pa.string(),
    Kind.MAYBE_JSON: pa.string(),
    Kind.LIST: pa.list_(pa.string()),
}

VALUES: dict[Kind, list[Any]] = {
    Kind.TEXT: AWKWARD,
    Kind.BOOL: [True, False, None],
    Kind.INTEGER: [0, -1, 2**63 - 1, -(2**63), None, 2**53 + 1],
    Kind.NUMBER: [0.0, -0.5, 1e300, 5e-324, 0.1 + 0.2, None, 1e16],
    Kind.DECIMAL: [Decimal("0.000000000001"), Decimal("-99999999999999999999999999.999999999999"), None, Decimal(5)],
    Kind.INSTANT: [datetime(2026, 2, 28, 23, 59, 59, 999000, UTC), datetime(1969, 12, 31, tzinfo=UTC), None],
    Kind.JSON: [
        "[]",
        None,
        '{"a": [1, 2.50, "x"]}',
        '"text"',
        "null",
        "-0.0",
        '{"big": 123456789012345678901234567890}',
    ],
    Kind.LIST: [[], None, ["a"], ["", 'q"', "é", "\n"], ["x"] * 50],
}


def batch(columns: Sequence[Column], **values: list[Any]) -> pa.RecordBatch:
    """Make one batch; cells of a MAYBE_JSON column are (text, whether it is JSON) or None."""
    arrays, names = [], []
    flags: dict[str, list[bool | None]] = {}
    for column in columns:
        cells = values[column.name]
        if column.kind is Kind.MAYBE_JSON:
            flags[column.name + JSON_FLAG] = [cell and cell[1] for cell in cells]
            cells = [cell and cell[0] for cell in cells]
        floats = any(isinstance(item, float) for cell in cells if isinstance(cell, list) for item in cell)
        arrays.append(pa.array(cells, pa.list_(pa.float64()) if floats else TYPES[column.kind]))
        names.append(column.name)
    arrays += [pa.array(flag, pa.bool_()) for flag in flags.values()]
    return pa.RecordBatch.from_arrays(arrays, names=[*names, *flags])


def every_kind(rows: int) -> tuple[tuple[Column, ...], dict[str, list[Any]]]:
    """Return a column of each kind that has plain values, and its values, repeated to as many rows."""
    columns = tuple(Column(kind.name.lower(), kind) for kind in VALUES)
    cells = {kind.name.lower(): (values * math.ceil(rows / len(values)))[:rows] for kind, values in VALUES.items()}
    return columns, cells


def encoded(
    name: str,
    columns: Sequence[Column],
    batches: Sequence[pa.RecordBatch],
    *,
    compression: str | None = None,
    neutralise: bool = True,
    bom: bool = False,
) -> bytes:
    """Return the whole file."""
    encoding = choose_encoding(name, compression, OutputOptions(csv_neutralise=neutralise, csv_bom=bom))
    return b"".join(ENCODERS[name](columns, iter(batches), encoding))


def sliced(whole: pa.RecordBatch, sizes: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Cut a batch into batches of the sizes given, and the rest."""
    start = 0
    for size in sizes:
        yield whole.slice(start, size)
        start += size
    yield whole.slice(start)
