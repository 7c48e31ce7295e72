import pyarrow as pa
import pytest

from pipeline.read.open_table import _name_columns


def test_a_column_of_several_types_is_named_in_the_error() -> None:
    values = [pa.array([1], pa.int32()), pa.array([2], pa.uint64())]
    variant = pa.UnionArray.from_dense(pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), values)
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b"]), variant], names=["c0", "c1"])

    with pytest.raises(TypeError, match="'toolCallsCount'"):
        list(_name_columns(iter([batch]), ["id", "toolCallsCount"]))
