"""Makes the columns of scores, one for each name, from one sorted list of scores per row."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sql.scores import NUMBER_TYPES
from pipeline.types import CELLS, Column, Kind

SCORES = "#scores"
"""The column of the lists: tuples of the name's place among the names (from 1), a number, and a text or null."""

PREFIX = "scores."

_TEXT, _NUMBER = pl.col("text"), pl.col("number")
_TEXT_AS_JSON = pl.struct(_TEXT.alias("v")).struct.json_encode().str.slice(5).str.head(-1)
# Adding zero leaves -0.0 as it is.
_DIGITS = pl.when(_NUMBER == 0).then(0.0).otherwise(_NUMBER).cast(pl.String).str.strip_suffix(".0")
_JSON = (
    pl.when(_TEXT.is_not_null()).then(_TEXT_AS_JSON).when(_NUMBER.is_finite()).then(_DIGITS).otherwise(pl.lit("null"))
)


@dataclass(frozen=True)
class ScoreColumn:
    """The column of one score name; `numbers` and `texts` say which values it has.

    A column of the kind JSON or MIXED has each row's values as the text of a JSON list.
    """

    score: str
    column: Column
    numbers: bool
    texts: bool

    @property
    def type(self) -> pa.DataType:
        """The column's Arrow type."""
        if self.column.kind is not Kind.LIST:
            return pa.string()
        return pa.list_(pa.float64() if self.numbers else pa.string())


def make_score_columns(
    found: Iterable[tuple[str, Collection[str]]], taken: Collection[str], fold: Callable[[str], str] = str
) -> list[ScoreColumn]:
    """Name the columns of scores, given their names and data types, in that order.

    A name that another column has, or a score before it, gets the prefix `scores.`, repeatedly until it is unique.
    Names are the same if `fold` makes the same text of them.
    """
    listed = list(found)
    columns_of_table = {fold(name) for name in taken}
    first = {fold(name): name for name, _ in reversed(listed)}
    used = columns_of_table | first.keys()
    columns = []
    for score, types in listed:
        name = score
        if fold(score) in columns_of_table or first[fold(score)] != score:
            while fold(name) in used:
                name = f"{PREFIX}{name}"
            used.add(fold(name))
        numbers, texts = bool(NUMBER_TYPES & set(types)), bool(set(types) - NUMBER_TYPES)
        kind = Kind.MIXED if numbers and texts else Kind.LIST
        columns.append(ScoreColumn(score, Column(name, kind), numbers, texts))
    return columns


class Cells:
    """Replaces a batch's list of scores by the column of the cells of sparse columns."""

    def __init__(self, columns: Sequence[ScoreColumn]) -> None:
        self._columns = len(columns)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the column at its end."""
        index = batch.schema.get_field_index(SCORES)
        return batch.remove_column(index).append_column(CELLS, self._make_cells(batch.column(index)))

    def _make_cells(self, lists: pa.Array) -> pa.Array:
        places, numbers, texts = (pc.struct_field(pc.list_flatten(lists), [field]) for field in range(3))
        # The scores of a row are sorted, so those of one cell are adjacent.
        of_row = pc.multiply(pc.list_parent_indices(lists).cast(pa.int64()), self._columns)
        cells = pc.run_end_encode(pc.add(of_row, pc.subtract(places.cast(pa.int64()), 1)), run_end_type=pa.int32())
        ends = pl.Series(cells.run_ends, dtype=pl.Int32)
        bounds = pl.concat([pl.Series([0], dtype=pl.Int32), ends]).to_arrow()
        values = _to_json(texts, numbers)
        written = pc.binary_join_element_wise(
            "[", pc.binary_join(pa.ListArray.from_arrays(bounds, values), ","), "]", ""
        )
        numbered = pl.Series("cell", cells.values)
        rows = pl.int_range(len(lists) + 1, eager=True) * self._columns
        offsets = numbered.search_sorted(rows, side="left").cast(pl.Int32).to_arrow()
        place = (numbered % self._columns + 1).to_arrow()
        return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([place, written], names=["place", "text"]))


class Scores:
    """Replaces a batch's list of scores by the columns: a list of values, or null where the row has none."""

    def __init__(self, columns: Sequence[ScoreColumn]) -> None:
        self._columns = tuple(columns)
        self._schema = pa.schema([pa.field(each.column.name, each.type) for each in columns])

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the columns at its end."""
        index = batch.schema.get_field_index(SCORES)
        made = self._make_columns(batch.column(index), batch.num_rows)
        rest = batch.remove_column(index)
        return pa.RecordBatch.from_arrays([*rest.columns, *made], schema=pa.schema([*rest.schema, *self._schema]))

    def _make_columns(self, lists: pa.Array, rows: int) -> Iterator[pa.Array]:
        """Yield the columns: slices of one long array per type, because there may be a thousand columns."""
        places, numbers, texts = (pc.struct_field(pc.list_flatten(lists), [field]) for field in range(3))
        numbered = pc.add(pc.multiply(pc.subtract(places.cast(pa.int64()), 1), rows), pc.list_parent_indices(lists))
        order = pc.sort_indices(numbered)  # stable: the values of a cell stay in order
        numbers, texts = numbers.take(order), texts.take(order)
        cells = pl.Series("cell", numbered.take(order)).rle().struct.unnest()
        long = {
            type_: _make_long(type_, cells, numbers, texts, rows * len(self._columns))
            for type_ in set(self._schema.types)
        }
        for place, type_ in enumerate(self._schema.types):
            yield long[type_].slice(place * rows, rows)


def _make_long(type_: pa.DataType, cells: pl.DataFrame, numbers: pa.Array, texts: pa.Array, places: int) -> pa.Array:
    """Make an array of `places` values, null except for the cells: their numbers, their texts, or both as JSON."""
    if not pa.types.is_string(type_):
        values = numbers if pa.types.is_floating(type_.value_type) else texts
        return pa.Array.from_buffers(type_, places, _lay_out(cells["value"], cells["len"], places), children=[values])
    lists = pa.ListArray.from_arrays(_to_offsets(cells["len"].cast(pl.Int32)), _to_json(texts, numbers))
    written = pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
    layout = _lay_out(cells["value"], pl.Series(pc.binary_length(written)), places)
    return pa.Array.from_buffers(type_, places, [*layout, written.buffers()[2]])


def _lay_out(at: pl.Series, sizes: pl.Series, places: int) -> list[pa.Buffer]:
    """Return the buffers of a sparse array: which places have a value, and where each value begins."""
    present = pl.repeat(value=False, n=places, dtype=pl.Boolean, eager=True).scatter(at, values=True)
    # The offset after a value grows by its size. The arrays are long, so there are only two of them.
    offsets = pl.zeros(places + 1, dtype=pl.Int32, eager=True).scatter(at + 1, sizes).cum_sum()
    return [present.to_arrow().buffers()[1], offsets.to_arrow().buffers()[1]]


def _to_offsets(sizes: pl.Series) -> pa.Array:
    """Return the offsets of values of these sizes, one after the other, and the end of the last."""
    return pl.concat([pl.zeros(1, dtype=pl.Int32, eager=True), sizes.cum_sum()]).to_arrow()


def _to_json(texts: pa.Array, numbers: pa.Array) -> pa.Array:
    """Return each text, or else the number, as JSON: `1` for 1.0, `0` for -0.0, `null` for NaN and infinities."""
    values = pl.DataFrame({"text": pl.from_arrow(texts), "number": pl.from_arrow(numbers)})
    return values.select(_JSON).to_series().to_arrow().cast(pa.string())
