"""Declares what the stages share: columns, formats and codecs as plain data, the result."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

JSON_FLAG = "#json"
"""Suffix of the boolean companion column of a MAYBE_JSON column."""

CELLS = "#cells"
"""Name of the one column that the cells of all SPARSE columns come in."""


class Kind(Enum):
    """The meaning of a column's values; an encoder has one way to write each kind.

    A reader delivers these Arrow types for each kind:

    - TEXT: string
    - BOOL: bool
    - INTEGER: any int
    - NUMBER: double
    - DECIMAL: decimal128 with at least one decimal place
    - INSTANT: timestamp[ms|us, UTC]
    - JSON: string; null, or one valid JSON text
    - MAYBE_JSON: string that may hold a JSON text; a bool column named `<name>#json` says which cells do
    - LIST: list<string> or list<double>
    - MIXED: string; null, or the JSON text of a list of strings and numbers, with no needless escapes; only typed
      formats get it, the others get SPARSE or JSON
    - SPARSE: these columns come last, after at least one other. One column named CELLS has the cells of all of them:
      for each row a sorted list of structs of the column's place among them (from 1) and its text, which is valid JSON
      on one line, with no needless escapes
    """

    TEXT = auto()
    BOOL = auto()
    INTEGER = auto()
    NUMBER = auto()
    DECIMAL = auto()
    INSTANT = auto()
    JSON = auto()
    MAYBE_JSON = auto()
    LIST = auto()
    MIXED = auto()
    SPARSE = auto()


@dataclass(frozen=True)
class Column:
    """One column of the file: its name and the meaning of its values."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Format:
    """A file format and its abilities; its encoder is in `pipeline.encode.ENCODERS`.

    `nested`: JSON values are stored as values. `typed`: columns have types, so each score name gets its own column.
    `caseless`: its readers take names that differ only in case for the same. `packs_itself`: the format compresses
    inside, so its files are not compressed again.
    """

    name: str
    extension: str
    content_type: str
    nested: bool = False
    typed: bool = False
    caseless: bool = False
    packs_itself: bool = False


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("CSV", "csv", "text/csv; charset=utf-8"),
        Format("JSON", "json", "application/json; charset=utf-8", nested=True),
        Format("JSONL", "jsonl", "application/x-ndjson; charset=utf-8", nested=True),
        Format(
            "PARQUET",
            "parquet",
            "application/vnd.apache.parquet",
            typed=True,
            caseless=True,
            packs_itself=True,
        ),
    )
}


@dataclass(frozen=True)
class Codec:
    """A compression of whole files; its code is in `pipeline.compress.COMPRESSORS`.

    `extension` is appended to the file's name. `content_type` None keeps that of the format.
    """

    name: str
    extension: str
    content_type: str | None


CODECS: dict[str, Codec] = {
    each.name: each
    for each in (
        Codec("none", "", None),
        Codec("gzip", ".gz", "application/gzip"),
        Codec("zstd", ".zst", "application/zstd"),
    )
}

_INNER_COMPRESSION = "zstd"


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The settings that say how files are written.

    `prefix` begins each object's key. `row_limit` None means all rows. `row_bytes` is the largest size of a row, in
    memory and not in the file; a larger one is rejected. `csv_neutralise` makes CSV cells safe that a spreadsheet would
    run as a formula. `csv_bom` begins CSV files with a byte order mark.
    """

    prefix: str = ""
    row_limit: int | None = None
    row_bytes: int = 32 << 20
    csv_neutralise: bool = True
    csv_bom: bool = False


@dataclass(frozen=True)
class Encoding:
    """How one file is written: `codec` compresses the whole file; `compression` may name one inside the format."""

    format: Format
    codec: Codec
    compression: str
    options: OutputOptions

    @property
    def extension(self) -> str:
        """The end of the file's name, without the first dot."""
        return f"{self.format.extension}{self.codec.extension}"

    @property
    def content_type(self) -> str:
        """The media type of the file as stored."""
        return self.codec.content_type or self.format.content_type


def choose_encoding(format_: str, compression: str | None, options: OutputOptions) -> Encoding:
    """Return the encoding for a format and a compression by name; None leaves the compression to the format.

    A format that compresses itself uses zstd unless the query names another compression; other formats use none.
    """
    format_chosen = FORMATS[format_]
    if format_chosen.packs_itself:
        return Encoding(format_chosen, CODECS["none"], compression or _INNER_COMPRESSION, options)
    codec = CODECS[compression or "none"]
    return Encoding(format_chosen, codec, codec.name, options)


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """One finished object, as its manifest, its run, its completion event and its email describe it.

    `rows` are rows in the file, `raw_bytes` its size before compression, `bytes` its size as stored, `sha256` (hex)
    that of the stored bytes; `truncated` when the row limit cut it; `ignored` names the unknown keys of the query, and
    `null_columns` the columns, as `table.column`, that are null because the tables do not have them yet.
    """

    key: str
    rows: int
    raw_bytes: int
    bytes: int
    sha256: str
    truncated: bool
    columns: tuple[str, ...]
    cutoff: datetime
    ignored: tuple[str, ...] = ()
    null_columns: tuple[str, ...] = ()
