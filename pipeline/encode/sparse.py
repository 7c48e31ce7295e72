"""Writes columns that most rows have nothing in, without a look at each: between two cells goes a cut of a template."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.cells import in_one_piece

FEW = 64
"""Columns; so many are written faster each by itself than as cuts of a template."""
_PIECE = 192 << 10
"""Bytes; larger pieces would be memory that is new to the process each time, and twice as slow to fill."""


def texts_of(cells: pa.ListArray) -> pa.Array:
    """List the texts of the cells of all rows."""
    return pc.struct_field(pc.list_flatten(cells), [1])


def spread(cells: pa.ListArray, columns: int) -> list[pl.Series]:
    """Make the columns themselves, null where a row has nothing."""
    places = pc.struct_field(pc.list_flatten(cells), [0])
    rows, texts = pc.list_parent_indices(cells), texts_of(cells)
    order = pc.sort_indices(places)
    found = pl.DataFrame(
        {
            "place": pl.Series(places.take(order)),
            "row": pl.Series(rows.take(order)),
            "text": pl.Series(texts.take(order), dtype=pl.String),
        }
    )
    nothing = pl.repeat(None, len(cells), dtype=pl.String, eager=True)
    made = {
        int(place): nothing.clone().scatter(there["row"], there["text"])
        for (place,), there in found.partition_by("place", as_dict=True).items()
    }
    return [made.get(place, nothing).alias(f"sparse {place}") for place in range(1, columns + 1)]


class Template:
    """The tail of a row that has nothing in its sparse columns: for each of them its lead, then what is for nothing.

    `end` ends each row.
    """

    def __init__(self, leads: Sequence[str], absent: str, end: str) -> None:
        self.columns = len(leads)
        self._text = ("".join(lead + absent for lead in leads) + end).encode()
        # Where the cell of a place ends, from 0 for none, and where it begins.
        sizes = (len((lead + absent).encode()) for lead in leads)
        self._after = pl.Series([0, *accumulate(sizes)], dtype=pl.Int64)
        self._before = self._after - len(absent.encode())

    def rows(self, heads: pl.Series, cells: pa.ListArray, texts: pl.Series) -> Iterator[bytes]:
        """Yield the rows, some at a time: the head of each, then its tail.

        `cells` are as of Kind.SPARSE; `texts` are what stands in the file for each of them.
        """
        pool = memoryview(b"".join([in_one_piece(heads), in_one_piece(texts), self._text]))
        offsets = pl.Series(pc.subtract(cells.offsets, cells.offsets[0]), dtype=pl.Int64)
        cuts = self._cuts(heads, cells, texts, offsets)
        starts, ends = cuts["start"].to_list(), cuts["end"].to_list()
        at_once = max(1, _PIECE * len(heads) // (len(pool) + len(heads) * len(self._text)))
        for row in range(0, len(heads), at_once):
            last = min(row + at_once, len(heads))
            piece = slice(2 * (row + offsets[row]), 2 * (last + offsets[last]))
            yield b"".join([pool[start:end] for start, end in zip(starts[piece], ends[piece], strict=True)])

    def _cuts(self, heads: pl.Series, cells: pa.ListArray, texts: pl.Series, offsets: pl.Series) -> pl.DataFrame:
        """Say where the pieces of the rows start and end in the pool of heads, texts and template.

        A row is its head, then for each cell what is before it and itself, then the rest of the template.
        """
        place = pl.Series(pc.struct_field(pc.list_flatten(cells), [0]), dtype=pl.Int64)
        row, cell = (pl.int_range(len(each), eager=True) for each in (heads, texts))
        owner = pl.Series(pc.list_parent_indices(cells), dtype=pl.Int64)
        first, end = offsets[:-1], offsets[1:]
        before = pl.concat([pl.Series([0]), place])  # the cell before, which may be another row's
        head, text = _laid_out(heads, 0), _laid_out(texts, _size(heads))
        template = _size(heads) + _size(texts)
        whole = template + len(self._text)
        lead_start = self._after.gather(before.gather(cell) * (cell > first.gather(owner)))
        tail_start = self._after.gather(before.gather(end) * (end > first))
        pieces = [
            head.with_columns(at=2 * (row + first)),
            _piece(2 * (owner + cell) + 1, template + lead_start, template + self._before.gather(place)),
            text.with_columns(at=2 * (owner + cell) + 2),
            _piece(
                2 * (row + end) + 1, template + tail_start, pl.repeat(whole, len(heads), dtype=pl.Int64, eager=True)
            ),
        ]
        return pl.concat(pieces).sort("at")


def _size(texts: pl.Series) -> int:
    return int(texts.str.len_bytes().cast(pl.Int64).sum())


def _laid_out(texts: pl.Series, start: int) -> pl.DataFrame:
    """Say where texts start and end that are laid out one after the other."""
    sizes = texts.str.len_bytes().cast(pl.Int64)
    ends = start + sizes.cum_sum()
    return pl.DataFrame({"start": ends - sizes, "end": ends})


def _piece(at: pl.Series, start: pl.Series, end: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"start": start, "end": end, "at": at})
