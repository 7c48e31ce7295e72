"""Makes a column of each score name, out of one sorted list of scores a row."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.scores import NUMBERS
from pipeline.types import CELLS, Column, Kind

SCORES = "#scores"
"""The column that the lists come in: tuples of a place among the names (from 1), a number, and a text or null."""

PREFIX = "scores."


@dataclass(frozen=True)
class ScoreColumn:
    """The column that a score's values go to; `numbers`, `texts` say what they are, and a mix of both is JSON."""

    score: str
    column: Column
    numbers: bool
    texts: bool

    @property
    def type(self) -> pa.DataType:
        """The column's Arrow type."""
        if self.column.kind is Kind.JSON:
            return pa.string()
        return pa.list_(pa.float64() if self.numbers else pa.string())


def score_columns(found: Iterable[tuple[str, Collection[str]]], taken: Collection[str]) -> list[ScoreColumn]:
    """Name the columns of scores, given their names and data types, in that order.

    A name that another column has is written `scores.<name>`, and again so until nothing else has it.
    """
    listed = list(found)
    used = {*taken, *(name for name, _ in listed)}
    columns = []
    for score, types in listed:
        name = score
        if score in taken:
            while name in used:
                name = f"{PREFIX}{name}"
            used.add(name)
        numbers, texts = bool(NUMBERS & set(types)), bool(set(types) - NUMBERS)
        kind = Kind.JSON if numbers and texts else Kind.LIST
        columns.append(ScoreColumn(score, Column(name, kind), numbers, texts))
    return columns


class Cells:
    """Replaces a batch's list of scores by the one column of the cells of sparse columns."""

    def __init__(self, columns: Sequence[ScoreColumn]) -> None:
        self._columns = len(columns)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the column at its end."""
        index = batch.schema.get_field_index(SCORES)
        return batch.remove_column(index).append_column(CELLS, self._cells(batch.column(index)))

    def _cells(self, lists: pa.Array) -> pa.Array:
        places, numbers, texts = (pc.struct_field(pc.list_flatten(lists), [field]) for field in range(3))
        # The scores of a row are sorted, so those of a cell stand together.
        of_row = pc.multiply(pc.list_parent_indices(lists).cast(pa.int64()), self._columns)
        cells = pc.run_end_encode(pc.add(of_row, pc.subtract(places.cast(pa.int64()), 1)), run_end_type=pa.int32())
        ends = pl.Series(cells.run_ends, dtype=pl.Int32)
        bounds = pl.concat([pl.Series([0], dtype=pl.Int32), ends]).to_arrow()
        values = pc.coalesce(_json(texts), _json(numbers))
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
        self._schema = [pa.field(each.column.name, each.type) for each in columns]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the columns at its end."""
        index = batch.schema.get_field_index(SCORES)
        made = dict(self._made(batch.column(index), batch.num_rows))
        rest = batch.remove_column(index)
        empty: dict[pa.DataType, pa.Array] = {}
        arrays = []
        for place, each in enumerate(self._columns):
            if each.type not in empty:
                empty[each.type] = pa.nulls(batch.num_rows, each.type)
            arrays.append(made.get(place, empty[each.type]))
        return pa.RecordBatch.from_arrays([*rest.columns, *arrays], schema=pa.schema([*rest.schema, *self._schema]))

    def _made(self, lists: pa.Array, rows: int) -> Iterator[tuple[int, pa.Array]]:
        """Yield the columns that the batch has values for, by their place among the columns."""
        places, numbers, texts = (pc.struct_field(pc.list_flatten(lists), [field]) for field in range(3))
        order = pc.sort_indices(places)  # stable: rows, and the values of each, stay in order
        numbers, texts = numbers.take(order), texts.take(order)
        numbered = pc.add(pc.multiply(places.cast(pa.int64()), rows), pc.list_parent_indices(lists)).take(order)
        cells = pc.run_end_encode(numbered, run_end_type=pa.int32())
        bounds = pa.concat_arrays([pa.array([0], pa.int32()), cells.run_ends])
        cell_places = pc.divide(cells.values, rows)
        owners = pc.subtract(cells.values, pc.multiply(cell_places, rows))
        columns = pc.run_end_encode(cell_places, run_end_type=pa.int32())
        start = 0
        for place, end in zip(columns.values.to_pylist(), columns.run_ends.to_pylist(), strict=True):
            values = _lists(self._columns[place - 1], bounds.slice(start, end - start + 1), numbers, texts)
            yield place - 1, pc.scatter(values, owners.slice(start, end - start), max_index=rows - 1)
            start = end


def _lists(each: ScoreColumn, bounds: pa.Array, numbers: pa.Array, texts: pa.Array) -> pa.Array:
    """Cut the values of a column into one list a cell; `bounds` are where the cells begin and end."""
    if each.column.kind is Kind.LIST:
        return pa.ListArray.from_arrays(bounds, numbers if each.numbers else texts)
    first, length = bounds[0].as_py(), bounds[-1].as_py() - bounds[0].as_py()
    written = pc.coalesce(_json(texts.slice(first, length)), _json(numbers.slice(first, length)))
    lists = pa.ListArray.from_arrays(pc.subtract(bounds, bounds[0]), written)
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")


def _json(values: pa.Array) -> pa.Array:
    """Write each value as JSON; nulls stay."""
    written = pl.DataFrame({"v": pl.from_arrow(values)}).select(
        pl.when(pl.col("v").is_not_null()).then(pl.struct("v").struct.json_encode().str.slice(5).str.head(-1))
    )
    return written.to_series().to_arrow().cast(pa.string())
