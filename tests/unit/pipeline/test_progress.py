import logging
from collections.abc import Iterator

import pyarrow as pa
import pytest

from config.errors import Cancelled
from pipeline.progress import Progress, watch


def batches(*rows: int) -> Iterator[pa.RecordBatch]:
    return (pa.RecordBatch.from_arrays([pa.nulls(count)], names=["x"]) for count in rows)


def test_rows_are_counted_before_they_are_passed_on() -> None:
    progress = Progress()
    assert [progress.rows for _ in watch(batches(3, 4, 5), progress, "e")] == [3, 7, 12]


def test_progress_is_told_every_5000_rows_and_loudly_every_100000(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pipeline.progress")
    list(watch(batches(4999, 1, 10, 94000, 990), Progress(), "e"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "5000 rows read"),
        ("DEBUG", "99010 rows read"),
        ("INFO", "100000 rows read"),
    ]


def test_a_stop_ends_it() -> None:
    progress = Progress()
    watched = watch(batches(1, 1), progress, "e")
    next(watched)
    progress.stop()
    with pytest.raises(Cancelled):
        next(watched)
    assert progress.rows == 1


def test_the_busiest_stage_is_that_since_the_last_call_and_waiting_does_not_count() -> None:
    progress = Progress()
    seen = [progress.read_busiest_stage()]
    for stages in (
        {"read": 5.0, "upload": 1.0, "wait": 9.0},
        {"read": 6.0, "upload": 4.0, "wait": 99.0, "idle": 99.0},
        {"read": 6.0, "upload": 4.0, "wait": 199.0, "idle": 99.0},
    ):
        progress.stages = stages
        seen.append(progress.read_busiest_stage())

    assert seen == [None, "read", "upload", None]
