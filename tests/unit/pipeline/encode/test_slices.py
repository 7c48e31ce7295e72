from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encode.slices import sized

TARGET = 10_000


@given(st.lists(st.lists(st.integers(0, 30_000), max_size=20), max_size=10))
def test_rows_stay_in_order_and_no_table_of_two_rows_is_too_large(batches: list[list[int]]) -> None:
    made = (pa.record_batch({"c": pa.array(["x" * size for size in sizes], pa.string())}) for sizes in batches)
    tables = list(sized(made, TARGET))
    assert [len(text) for table in tables for text in table["c"].to_pylist()] == [n for sizes in batches for n in sizes]
    assert all(table.num_rows == 1 or table.nbytes <= TARGET for table in tables)
    assert all(table.num_rows for table in tables)


def test_small_batches_are_gathered() -> None:
    made = (pa.record_batch({"c": pa.array(["x"], pa.string())}) for _ in range(1000))
    assert len(list(sized(made, TARGET))) == 1


def test_nothing_is_read_before_it_is_needed() -> None:
    taken = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal taken
        while True:
            taken += 1
            yield pa.record_batch({"c": pa.array(["x" * TARGET], pa.string())})

    next(sized(batches(), TARGET))
    assert taken == 2
