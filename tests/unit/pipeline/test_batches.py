from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import rebatch, repair

BAD = b"a\xffb"
TARGET = 10_000


def invalid(values: list[bytes | None]) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


def one(array: pa.Array) -> pa.Array:
    (made,) = repair(iter([pa.RecordBatch.from_arrays([array], names=["x"])]))
    made.validate(full=True)
    assert made.column(0).type == array.type
    return made.column(0)


def test_valid_batches_pass_as_they_are() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["ü", None, "😀"])], names=["x"])
    assert next(repair(iter([batch]))) is batch


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


@given(st.lists(st.lists(st.integers(0, 30_000), max_size=20), max_size=10))
def test_rows_stay_in_order_and_no_batch_of_two_rows_is_too_large(batches: list[list[int]]) -> None:
    made = (pa.record_batch({"c": pa.array(["x" * size for size in sizes], pa.string())}) for sizes in batches)
    found = list(rebatch(made, TARGET))
    assert [len(text) for batch in found for text in batch["c"].to_pylist()] == [n for sizes in batches for n in sizes]
    assert all(batch.num_rows <= 1 or batch.nbytes <= TARGET for batch in found)
    assert sum(not batch.num_rows for batch in found) <= 1


def test_small_batches_are_joined() -> None:
    made = (pa.record_batch({"c": pa.array(["x"], pa.string())}) for _ in range(1000))
    assert len(list(rebatch(made, TARGET))) == 1


def test_a_batch_without_rows_keeps_its_types() -> None:
    empty = pa.record_batch({"c": pa.array([], pa.string())})
    assert list(rebatch(iter([empty]), TARGET)) == [empty]
    assert list(rebatch(iter([]), TARGET)) == []


def test_nothing_is_read_before_it_is_needed() -> None:
    taken = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal taken
        while True:
            taken += 1
            yield pa.record_batch({"c": pa.array(["x" * TARGET], pa.string())})

    next(rebatch(batches(), TARGET))
    assert taken == 2
