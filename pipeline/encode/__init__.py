"""Turns record batches into the bytes of a file: one encoder per format."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.encode.csv import encode_csv
from pipeline.encode.json import encode_json, encode_jsonl
from pipeline.encode.options import Chunk, EncodeOptions
from pipeline.encode.parquet import encode_parquet
from pipeline.types import Column

Encode = Callable[[Sequence[Column], Iterator[pa.RecordBatch], EncodeOptions], Iterator[Chunk]]
"""Reads batches that have all of the columns by name, with their `#json` companions, and yields pieces of the file.

Takes no more from the reader than it needs for the next piece; what the reader raises passes through.
"""


@dataclass(frozen=True)
class Format:
    """A way to write rows: its file name extension, its media type, its encoder.

    `packs_itself` where the format has its own compression inside, so that its files are not compressed again.
    """

    extension: str
    content_type: str
    encode: Encode
    packs_itself: bool = False


FORMATS: dict[str, Format] = {
    "CSV": Format("csv", "text/csv; charset=utf-8", encode_csv),
    "JSON": Format("json", "application/json", encode_json),
    "JSONL": Format("jsonl", "application/x-ndjson", encode_jsonl),
    "PARQUET": Format("parquet", "application/vnd.apache.parquet", encode_parquet, packs_itself=True),
}
