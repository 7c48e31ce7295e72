import pyarrow as pa

from pipeline.read.batches import WORTH_WORKING_ON, joined, repaired

BAD = b"a\xffb"


def invalid(values: list[bytes | None]) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


def one(array: pa.Array) -> pa.Array:
    (made,) = repaired(iter([pa.RecordBatch.from_arrays([array], names=["x"])]))
    made.validate(full=True)
    assert made.column(0).type == array.type
    return made.column(0)


def test_valid_batches_pass_as_they_are() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["ü", None, "😀"])], names=["x"])
    assert next(repaired(iter([batch]))) is batch


def test_text_that_is_not_utf8_is_mended_and_nulls_stay() -> None:
    assert one(invalid([BAD, None, b"ok"])).to_pylist() == ["a\ufffdb", None, "ok"]
    assert one(invalid([b"x", BAD, None, BAD]).slice(1, 2)).to_pylist() == ["a\ufffdb", None]


def test_text_inside_lists_and_structs_is_mended_too() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, None, 2, 3], pa.int32()), invalid([b"a", BAD, BAD]))
    assert one(lists).to_pylist() == [["a", "a\ufffdb"], None, ["a\ufffdb"]]
    assert one(lists.slice(1, 2)).to_pylist() == [None, ["a\ufffdb"]]
    structs = pa.StructArray.from_arrays([pa.array([1, 2]), invalid([BAD, None])], names=["n", "t"])
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), structs)
    assert one(nested).to_pylist() == [[{"n": 1, "t": "a\ufffdb"}], [{"n": 2, "t": None}]]
    assert one(nested.slice(1)).to_pylist() == [[{"n": 2, "t": None}]]


def test_small_batches_are_joined_until_they_are_worth_working_on() -> None:
    half = pa.RecordBatch.from_arrays([pa.array(["x" * (WORTH_WORKING_ON // 2)])], names=["x"])
    assert [batch.num_rows for batch in joined(iter([half] * 5))] == [2, 2, 1]
    assert list(joined(iter([]))) == []
