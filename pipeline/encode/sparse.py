"""Encodes sparse columns by splicing the non-null cells into a prebuilt row template."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.cells import concatenate

SPREAD_COLUMNS = 64
"""Up to this many sparse columns are encoded faster as ordinary columns than by a template."""
_CHUNK_BYTES = 192 << 10
"""The allocator takes larger chunks as new memory each time, which is twice as slow to fill."""


def list_texts(cells: pa.ListArray) -> pa.Array:
    """List the texts of the cells of all rows."""
    return pc.struct_field(pc.list_flatten(cells), [1])


def name_sparse(columns: int) -> list[str]:
    """Name the columns that `spread_cells` makes of as many sparse columns."""
    return [f"sparse {place}" for place in range(1, columns + 1)]


def spread_cells(cells: pa.ListArray, columns: int, absent: str | None = None) -> list[pl.Series]:
    """Make one ordinary column for each sparse column, with `absent` where a row has no cell.

    They are slices of one long column, because there are many and their cells are few.
    """
    rows = len(cells)
    place = pl.Series(pc.struct_field(pc.list_flatten(cells), [0]), dtype=pl.Int64)
    row = pl.Series(pc.list_parent_indices(cells), dtype=pl.Int64)
    empty = pl.repeat(absent, rows * columns, dtype=pl.String, eager=True)
    long = empty.scatter((place - 1) * rows + row, pl.Series(list_texts(cells), dtype=pl.String))
    return [long.slice(rows * at, rows).alias(name) for at, name in enumerate(name_sparse(columns))]


class Template:
    """The text of a row's sparse columns where all are null: for each column its lead and `absent`, then `end`."""

    def __init__(self, leads: Sequence[str], absent: str, end: str) -> None:
        self.columns = len(leads)
        self._text = ("".join(lead + absent for lead in leads) + end).encode()
        # The offsets in the text where the cell of each place ends and begins; place 0 is the start of the text.
        sizes = (len((lead + absent).encode()) for lead in leads)
        self._after = pl.Series([0, *accumulate(sizes)], dtype=pl.Int64)
        self._before = self._after - len(absent.encode())

    def encode_rows(self, heads: pl.Series, cells: pa.ListArray, texts: pl.Series) -> Iterator[bytes]:
        """Yield the rows in chunks: each row is its head, then its sparse columns.

        `cells` are as of Kind.SPARSE; `texts` are their texts in the file.
        """
        pool = memoryview(b"".join([concatenate(heads), concatenate(texts), self._text]))
        offsets = pl.Series(pc.subtract(cells.offsets, cells.offsets[0]), dtype=pl.Int64)
        cuts = self._list_cuts(heads, cells, texts, offsets)
        starts, ends = cuts["start"].to_list(), cuts["end"].to_list()
        rows_per_chunk = max(1, _CHUNK_BYTES * len(heads) // (len(pool) + len(heads) * len(self._text)))
        for row in range(0, len(heads), rows_per_chunk):
            last = min(row + rows_per_chunk, len(heads))
            piece = slice(2 * (row + offsets[row]), 2 * (last + offsets[last]))
            yield b"".join([pool[start:end] for start, end in zip(starts[piece], ends[piece], strict=True)])

    def _list_cuts(self, heads: pl.Series, cells: pa.ListArray, texts: pl.Series, offsets: pl.Series) -> pl.DataFrame:
        """Return the start and end of each piece of the rows in the pool of heads, texts and template.

        A row is its head, then for each cell the template up to it and the cell, then the rest of the template.
        """
        place = pl.Series(pc.struct_field(pc.list_flatten(cells), [0]), dtype=pl.Int64)
        row, cell = (pl.int_range(len(each), eager=True) for each in (heads, texts))
        owner = pl.Series(pc.list_parent_indices(cells), dtype=pl.Int64)
        first, end = offsets[:-1], offsets[1:]
        before = pl.concat([pl.Series([0]), place])  # the previous cell, which may belong to another row
        head, text = _place_texts(heads, 0), _place_texts(texts, _measure(heads))
        template = _measure(heads) + _measure(texts)
        whole = template + len(self._text)
        lead_start = self._after.gather(before.gather(cell) * (cell > first.gather(owner)))
        tail_start = self._after.gather(before.gather(end) * (end > first))
        pieces = [
            head.with_columns(at=2 * (row + first)),
            _make_pieces(2 * (owner + cell) + 1, template + lead_start, template + self._before.gather(place)),
            text.with_columns(at=2 * (owner + cell) + 2),
            _make_pieces(
                2 * (row + end) + 1, template + tail_start, pl.repeat(whole, len(heads), dtype=pl.Int64, eager=True)
            ),
        ]
        return pl.concat(pieces).sort("at")


def _measure(texts: pl.Series) -> int:
    return int(texts.str.len_bytes().cast(pl.Int64).sum())


def _place_texts(texts: pl.Series, start: int) -> pl.DataFrame:
    """Return the start and end of texts that are placed one after the other."""
    sizes = texts.str.len_bytes().cast(pl.Int64)
    ends = start + sizes.cum_sum()
    return pl.DataFrame({"start": ends - sizes, "end": ends})


def _make_pieces(at: pl.Series, start: pl.Series, end: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"start": start, "end": end, "at": at})
