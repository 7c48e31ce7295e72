import pyarrow as pa
import pytest

from pipeline import batches
from pipeline.read.open_table import Table, _name_columns
from pipeline.types import CELLS, Column, Kind


def test_a_column_of_several_types_is_named_in_the_error() -> None:
    values = [pa.array([1], pa.int32()), pa.array([2], pa.uint64())]
    variant = pa.UnionArray.from_dense(pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), values)
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b"]), variant], names=["c0", "c1"])

    with pytest.raises(TypeError, match="'toolCallsCount'"):
        list(_name_columns(iter([batch]), ["id", "toolCallsCount"]))


def test_a_batch_is_cut_before_columns_are_added_that_make_it_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_CELLS", 35)
    names = ["id", *(f"score {number}" for number in range(9))]
    sizes = []

    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        sizes.append(batch.num_rows)
        return pa.RecordBatch.from_arrays([batch.column(0)] * len(names), names=names)

    whole = pa.RecordBatch.from_arrays([pa.array([str(number) for number in range(8)])], names=["id"])
    table = Table([Column(name, Kind.TEXT) for name in names], iter([]), [enrich], None)
    made = list(table.enrich(iter([whole, whole.slice(0, 0)])))

    assert sizes == [3, 3, 2, 0]
    assert [each for batch in made for each in batch.column(9).to_pylist()] == whole.column(0).to_pylist()


def test_sparse_columns_do_not_count_as_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_CELLS", 8)
    columns = [Column("id", Kind.TEXT), *(Column(f"score {number}", Kind.SPARSE) for number in range(9))]
    whole = pa.RecordBatch.from_arrays([pa.array(["a"] * 8), pa.nulls(8)], names=["id", CELLS])
    assert [each.num_rows for each in Table(columns, iter([]), [], None).enrich(iter([whole]))] == [8]


def test_a_table_may_have_sparse_columns_alone() -> None:
    whole = pa.RecordBatch.from_arrays([pa.array(["a", "b"]), pa.nulls(2)], names=["id", CELLS])
    table = Table([Column("score", Kind.SPARSE)], iter([]), [], None)
    assert [each.to_pylist() for each in table.enrich(iter([whole]))] == [
        [{CELLS: None, "id": "a"}, {CELLS: None, "id": "b"}]
    ]
