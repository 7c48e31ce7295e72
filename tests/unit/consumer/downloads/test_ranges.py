import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.downloads.ranges import Unsatisfiable, read_range

SETTINGS = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=2-5", range(2, 6)),
        ("bytes=2-", range(2, 10)),
        ("bytes=2-9999", range(2, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-9999", range(10)),
        ("Bytes=9-9", range(9, 10)),
    ],
)
def test_one_range_is_read(header: str, asked: range) -> None:
    assert read_range(header, 10) == asked


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "rows=0-1",
        "bytes=a-b",
        "bytes 0-1",
        "bytes=0x1-2",
        "bytes=0-" + "9" * 5000,
    ],
)
def test_what_is_not_one_range_is_passed_over(header: str | None) -> None:
    assert read_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_beyond_the_end_is_refused(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        read_range(header, size)


@SETTINGS
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_a_range_is_always_within_the_file(first: int, last: int, size: int) -> None:
    try:
        asked = read_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert first >= size
        return
    if asked is None:
        assert last < first
    else:
        assert list(asked) == [byte for byte in range(size) if first <= byte <= last]
