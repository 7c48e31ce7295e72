"""Encodes record batches as the bytes of a file: one encoder for each format of `pipeline.types.FORMATS`."""

# The encoders of CSV and JSON are written by hand, because no library writes whole batches with what users need: a null
# differs from an empty text, JSON cells become JSON values without being parsed, and numbers keep every digit.

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from pipeline.buffer import Chunk
from pipeline.encode.csv import encode_csv
from pipeline.encode.json import encode_json, encode_jsonl
from pipeline.encode.parquet import encode_parquet
from pipeline.types import Column, Encoding

Encode = Callable[[Sequence[Column], Iterator[pa.RecordBatch], Encoding], Iterator[Chunk]]
"""Reads batches that have all columns by name, with their `#json` companions, and yields the file in chunks.

Reads no more batches than the next chunk needs. There is at least one batch. Before they are enriched, batches have at
most BATCH_BYTES or one row, and they may have no rows. Errors of the batches' iterator pass through.
"""

ENCODERS: dict[str, Encode] = {
    "CSV": encode_csv,
    "JSON": encode_json,
    "JSONL": encode_jsonl,
    "PARQUET": encode_parquet,
}
