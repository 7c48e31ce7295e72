"""Writes columns that most rows have nothing in, without a look at each: between two cells goes a cut of a template."""

from collections.abc import Sequence
from itertools import accumulate

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


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
    """The tail of a row that has nothing in its sparse columns: for each of them its lead, then what is for nothing."""

    def __init__(self, leads: Sequence[str], absent: str) -> None:
        self.columns = len(leads)
        self.text = "".join(lead + absent for lead in leads)
        self._end = len(leads) + 1
        # After the column of a place, from 0, and before the cell of one, with the end of the row as the last.
        self._after = [0, *accumulate(len(lead) + len(absent) for lead in leads)]
        self._before = [0, *(after - len(absent) for after in self._after[1:]), len(self.text)]

    def tails(self, cells: pa.ListArray, texts: pa.Array) -> pl.Series:
        """Return the tail of each row; `cells` are as of Kind.SPARSE, `texts` what stands in the file for each."""
        offsets = pc.subtract(cells.offsets, cells.offsets[0])
        rows = pl.int_range(len(cells) + 1, dtype=pl.Int32, eager=True).to_arrow()
        places = pc.struct_field(pc.list_flatten(cells), [0])
        # Each row's end is one cell more.
        order = pc.sort_indices(
            pa.concat_arrays(
                [self._numbered(pc.list_parent_indices(cells), places), self._numbered(rows[:-1], self._end)]
            )
        )
        places = pa.concat_arrays([places, pa.repeat(pa.scalar(self._end, places.type), len(cells))]).take(order)
        texts = pa.concat_arrays([texts, pa.repeat("", len(cells))]).take(order)
        before = pa.concat_arrays([places[:0], pa.repeat(pa.scalar(self._end, places.type), 1), places[:-1]])
        before = pc.if_else(pc.equal(before, self._end), 0, before)
        pieces = pc.binary_join_element_wise(self._between(before, places), texts, "")
        lists = pa.ListArray.from_arrays(pc.add(offsets, rows), pieces)
        return pl.Series(pc.binary_join(lists, ""))

    def _numbered(self, rows: pa.Array, places: pa.Array | int) -> pa.Array:
        return pc.add(pc.multiply(rows.cast(pa.int64()), self._end + 1), places)

    def _between(self, before: pa.Array, places: pa.Array) -> pa.Array:
        """Cut what stands between the cells of two places out of the template, once for all rows that have it."""
        pairs = self._numbered(before, places).dictionary_encode()
        cuts = (divmod(pair, self._end + 1) for pair in pairs.dictionary.to_pylist())
        texts = [self.text[self._after[one] : self._before[other]] for one, other in cuts]
        return pl.Series(texts, dtype=pl.String).to_arrow().cast(pa.string()).take(pairs.indices)
