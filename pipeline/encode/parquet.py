"""Encodes Parquet: typed columns, one row group for each batch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pyarrow as pa

from pipeline.buffer import Chunk
from pipeline.encode.cells import find_masks, list_checks, make_frame, unescape_columns
from pipeline.encode.row_groups import RowGroups
from pipeline.types import Column, Encoding, Kind

_CODECS = {"none": "none", "gzip": "gzip", "zstd": "zstd"}
# Events have microseconds and other tables milliseconds, and both can be the source of one table.
_INSTANT = pa.timestamp("us", tz="UTC")
_MOSTLY_NULL = {Kind.LIST, Kind.MIXED}


def encode_parquet(columns: Sequence[Column], batches: Iterator[pa.RecordBatch], encoding: Encoding) -> Iterator[Chunk]:
    """Yield a Parquet file: JSON as text, instants as UTC timestamps, lists as lists, decimals as decimals.

    `encoding.compression` compresses the pages. Column types are those of the first batch, even if it has no rows; but
    instants always have microseconds. Lists and mixed columns have no dictionaries and no statistics, because there may
    be a thousand of them, mostly null.
    """
    first = next(batches)
    schema = pa.schema(
        [
            pa.field(column.name, _INSTANT if column.kind is Kind.INSTANT else type_)
            for column, type_ in zip(columns, first.schema.types, strict=False)
        ]
    )
    convert = _prepare_conversion(columns, schema)
    flat = [column.name for column in columns if column.kind not in _MOSTLY_NULL]
    compression = _CODECS[encoding.compression]
    with RowGroups(schema, compression=compression, use_dictionary=flat, write_statistics=flat) as groups:
        batches = chain([first], batches)
        del first  # the batch is large
        yield from groups.encode(map(convert, batches))


def _prepare_conversion(columns: Sequence[Column], schema: pa.Schema) -> Callable[[pa.RecordBatch], pa.Table]:
    """Return a function that gives the columns of the file, with the escapes in JSON cells replaced."""
    instants = [place for place, column in enumerate(columns) if column.kind is Kind.INSTANT]
    places = [place for place, column in enumerate(columns) if column.kind in {Kind.JSON, Kind.MAYBE_JSON}]
    holders = [columns[place] for place in places]
    checks = list_checks(holders, {})

    def convert(batch: pa.RecordBatch) -> pa.Table:
        arrays = batch.columns[: len(columns)]
        for place in instants:
            arrays[place] = arrays[place].cast(_INSTANT)
        frame = make_frame(batch.select([*places, *range(len(columns), batch.num_columns)]), holders)
        for name in unescape_columns(frame, find_masks(frame, checks)):
            place = places[int(name)]
            arrays[place] = frame[name].to_arrow().cast(schema.field(place).type)
        return pa.Table.from_arrays(arrays, schema=schema)

    return convert
