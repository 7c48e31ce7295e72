"""Encodes Parquet: typed columns, one row group for each batch."""

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.buffer import Chunk, WriteBuffer
from pipeline.encode.cells import find_masks, make_frame, unescape_columns
from pipeline.types import Column, Encoding, Kind

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
_MOSTLY_NULL = {Kind.LIST, Kind.MIXED}


def encode_parquet(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], encoding: Encoding) -> Iterator[Chunk]:
    """Yield a Parquet file: JSON as text, instants as UTC timestamps, lists as lists, decimals as decimals.

    `encoding.compression` compresses the pages. Column types are those of the first batch. Lists and mixed columns have
    no dictionaries and no statistics, because there may be a thousand of them, mostly null.
    """
    first = next(batches, None)
    schema = _make_schema(columns, first)
    sink = WriteBuffer()
    flat = [column.name for column in columns if column.kind not in _MOSTLY_NULL]
    with pq.ParquetWriter(
        sink, schema, compression=_CODECS[encoding.compression], use_dictionary=flat, write_statistics=flat
    ) as writer:
        for batch in chain([] if first is None else [first], batches):
            if batch.num_rows:
                writer.write_table(_convert(batch, columns, schema))
                yield sink.take()
    yield sink.take()


def _make_schema(columns: Sequence[Column], first: pa.RecordBatch | None) -> pa.Schema:
    types = [_TYPES[column.kind] for column in columns] if first is None else first.schema.types
    return pa.schema([pa.field(column.name, type_) for column, type_ in zip(columns, types, strict=False)])


def _convert(batch: pa.RecordBatch, columns: Sequence[Column], schema: pa.Schema) -> pa.Table:
    """Return the columns of the file, with the escapes in JSON cells replaced."""
    arrays = batch.columns[: len(columns)]
    places = [place for place, column in enumerate(columns) if column.kind in {Kind.JSON, Kind.MAYBE_JSON}]
    holders = [columns[place] for place in places]
    frame = make_frame(batch.select([*places, *range(len(columns), batch.num_columns)]), holders)
    for series in unescape_columns(frame, find_masks(frame, holders, {})):
        place = places[int(series.name)]
        arrays[place] = series.to_arrow().cast(schema.field(place).type)
    return pa.Table.from_arrays(arrays, schema=schema)
