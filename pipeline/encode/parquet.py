"""Encodes Parquet: typed columns, in row groups of bounded size."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.buffer import Pieces
from pipeline.encode.cells import found, positional, unescaped
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.slices import sized
from pipeline.types import Column, Kind

_ROW_GROUP = 8 << 20
_NOTHING = 4
"""Bytes that a null list or text takes in memory, and not in the file."""
_CODECS = {"none": "none", "gzip": "gzip", "zstd": "zstd"}
_TYPES: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.string(),
    Kind.BOOL: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.DECIMAL: pa.decimal128(38, 12),
    Kind.INSTANT: pa.timestamp("ms", tz="UTC"),
    Kind.JSON: pa.string(),
    Kind.MAYBE_JSON: pa.string(),
    Kind.LIST: pa.list_(pa.string()),
    Kind.MIXED: pa.string(),
}
_SELDOM = {Kind.LIST, Kind.MIXED}


def encode_parquet(
    columns: Sequence[Column], batches: Iterator[pa.RecordBatch], options: EncodeOptions
) -> Iterator[Chunk]:
    """Yield a Parquet file: JSON as text, instants as UTC timestamps, lists as lists, decimals as decimals.

    `options.compression` is that of the pages. Column types are those of the first batch. Lists and mixed columns have
    no dictionaries and no statistics: there may be a thousand of them, with little in each.
    """
    first = next(batches, None)
    schema = _schema(columns, first)
    sink = Pieces()
    flat = [column.name for column in columns if column.kind not in _SELDOM]
    with pq.ParquetWriter(
        sink, schema, compression=_CODECS[options.compression], use_dictionary=flat, write_statistics=flat
    ) as writer:
        for table in sized(_again(first, batches), _ROW_GROUP, _NOTHING * (len(flat) - len(columns))):
            writer.write_table(_typed(table, columns, schema))
            yield sink.take()
    yield sink.take()


def _again(first: pa.RecordBatch | None, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if first is not None:
        yield first
    yield from rest


def _schema(columns: Sequence[Column], first: pa.RecordBatch | None) -> pa.Schema:
    types = [_TYPES[column.kind] for column in columns] if first is None else first.schema.types
    return pa.schema([pa.field(column.name, type_) for column, type_ in zip(columns, types, strict=False)])


def _typed(table: pa.Table, columns: Sequence[Column], schema: pa.Schema) -> pa.Table:
    arrays = table.columns[: len(columns)]
    places = [place for place, column in enumerate(columns) if column.kind in {Kind.JSON, Kind.MAYBE_JSON}]
    holders = [columns[place] for place in places]
    frame = positional(table.select([*places, *range(len(columns), table.num_columns)]), holders)
    for series in unescaped(frame, found(frame, holders, {})):
        place = places[int(series.name)]
        arrays[place] = pa.chunked_array([series.to_arrow().cast(schema.field(place).type)])
    return pa.Table.from_arrays(arrays, schema=schema)
