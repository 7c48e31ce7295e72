import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.types import Column, Kind
from tests.unit.pipeline.encode.rows import batch, encoded, every_kind, sliced


def parsed(data: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(data))


def test_every_kind_comes_back_typed() -> None:
    columns, values = every_kind(200)
    table = parsed(encoded("PARQUET", columns, list(sliced(batch(columns, **values), [0, 1, 50])))).read()
    assert table.schema.names == [column.name for column in columns]
    assert table.to_pydict() == values
    assert table.schema.field("instant").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("decimal").type == pa.decimal128(38, 12)
    assert pa.types.is_list(table.schema.field("list").type)


def test_json_cells_are_unescaped_text_and_their_flags_stay_out() -> None:
    columns = (Column("c", Kind.MAYBE_JSON), Column("j", Kind.JSON))
    cells: list[Any] = [(r'"\u00e9"', True), (r'"\u00e9"', False), None]
    data = encoded("PARQUET", columns, [batch(columns, c=cells, j=[r'["\u00e9"]', None, "1"])])
    assert parsed(data).read().to_pydict() == {"c": ['"é"', r'"\u00e9"', None], "j": ['["é"]', None, "1"]}


def test_a_file_without_rows_has_the_types_of_one_with_rows() -> None:
    columns, values = every_kind(5)
    filled = batch(columns, **values)

    empty, full = (parsed(encoded("PARQUET", columns, [each])).read() for each in (filled.slice(0, 0), filled))

    assert (empty.num_rows, full.num_rows) == (0, 5)
    assert empty.schema == full.schema


@pytest.mark.parametrize(("setting", "found"), [("none", "UNCOMPRESSED"), ("gzip", "GZIP"), ("zstd", "ZSTD")])
def test_pages_are_compressed_as_asked(setting: str, found: str) -> None:
    columns = (Column("c", Kind.TEXT),)
    data = encoded("PARQUET", columns, [batch(columns, c=["x" * 1000])], compression=setting)
    assert parsed(data).metadata.row_group(0).column(0).compression == found


def test_each_batch_with_rows_is_a_row_group() -> None:
    columns = (Column("c", Kind.TEXT),)
    batches = [batch(columns, c=["x"] * rows) for rows in (70, 0, 3)]
    metadata = parsed(encoded("PARQUET", columns, batches)).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [70, 3]


def test_what_scores_are_mixed_of_is_written_as_it_is() -> None:
    columns = (Column("c", Kind.JSON), Column("m", Kind.MIXED))
    rows = pa.RecordBatch.from_arrays([pa.array(["[]", None]), pa.array([None, '[1.0,"\\u0000"]'])], names=["c", "m"])
    assert parsed(encoded("PARQUET", columns, [rows])).read().column("m").to_pylist() == [None, '[1.0,"\\u0000"]']
