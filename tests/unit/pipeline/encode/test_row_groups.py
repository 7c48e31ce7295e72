import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.encode.row_groups import RowGroups

OPTIONS: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["text"], "write_statistics": ["text"]}
# The bytes that follow the schema in the footer of an empty file, as the name of a column.
AWKWARD = "\x16\x00\x19\x0c"


def table(rows: int) -> pa.Table:
    numbers = [None if row % 3 else [row / 7] for row in range(rows)]
    return pa.table(
        {"text": [f"text {row % 10}" for row in range(rows)], "numbers": numbers, AWKWARD: list(range(rows))},
        schema=pa.schema([("text", pa.string()), ("numbers", pa.list_(pa.float64())), (AWKWARD, pa.int64())]),
    )


def encode(tables: list[pa.Table]) -> bytes:
    with RowGroups(tables[0].schema, **OPTIONS) as groups:
        return b"".join(groups.encode(iter(tables)))


@pytest.mark.parametrize("count", [0, 1, 14, 15, 300])
def test_the_file_is_the_one_that_one_writer_of_pyarrow_makes(count: int) -> None:
    tables = [table(number + 1) for number in range(count)]
    expected = io.BytesIO()
    with pq.ParquetWriter(expected, table(0).schema, **OPTIONS) as writer:
        for each in tables:
            writer.write_table(each)

    assert encode([table(0), *tables]) == expected.getvalue()


def test_tables_without_rows_are_left_out_and_large_ones_are_one_row_group() -> None:
    large = pa.table({"text": pa.nulls((1 << 20) + 1, pa.string())})
    file = pq.ParquetFile(io.BytesIO(encode([large.slice(0, 5), large.slice(0, 0), large])))
    rows = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert rows == [5, (1 << 20) + 1]


def test_memory_does_not_grow_with_the_row_groups() -> None:
    wide = pa.table({f"score {number}": pa.nulls(1, pa.list_(pa.float64())) for number in range(1000)})

    def watch(sizes: list[int]) -> Iterator[pa.Table]:
        for _ in range(100):
            sizes.append(resident())
            yield wide

    sizes: list[int] = []
    with RowGroups(wide.schema, use_dictionary=False, write_statistics=False) as groups:
        for _ in groups.encode(watch(sizes)):
            pass
    assert sizes[-1] - sizes[20] < 20 << 20  # one writer for the whole file takes 70 MiB more


def test_the_file_descriptor_is_closed() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with RowGroups(table(0).schema, **OPTIONS) as groups:
        next(groups.encode(iter([table(3)])))
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_the_file_descriptor_is_closed_if_no_file_can_be_written() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(pa.ArrowNotImplementedError):
        RowGroups(pa.schema([("n", pa.dense_union([pa.field("a", pa.int32())]))]))
    assert set(Path("/proc/self/fd").iterdir()) <= before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
