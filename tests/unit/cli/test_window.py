import re
from datetime import UTC, datetime

import pytest

from cli.window import Window, find_time_column, read_window
from config.errors import Rejected
from pipeline.tables import TABLES
from pipeline.tables.clickhouse_table import ClickHouseTable

NOW = datetime(2026, 10, 1, 14, 5, 33, 250_000, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "start", "end"),
    [
        ("24h", "2026-09-30T14:00", "2026-10-01T14:00"),
        ("1d", "2026-09-30T00:00", "2026-10-01T00:00"),
        ("7d", "2026-09-24T00:00", "2026-10-01T00:00"),
        ("30m", "2026-10-01T13:35", "2026-10-01T14:05"),
    ],
)
def test_the_last_time_ends_with_a_whole_unit(last: str, start: str, end: str) -> None:
    assert read_window(last, None, None, NOW) == Window(at(start), at(end))


def test_the_last_time_before_an_end_is_counted_from_that_end() -> None:
    window = read_window("24h", None, "2026-09-01T10:30:00Z", NOW)

    assert window == Window(at("2026-08-31T10:30"), at("2026-09-01T10:30"))


def test_dates_are_days_in_utc_and_times_may_have_a_zone() -> None:
    assert read_window(None, "2026-09-01", "2026-09-02", NOW) == Window(at("2026-09-01"), at("2026-09-02"))
    assert read_window(None, "2026-09-01T02:00:00+02:00", "2026-09-02T10:00", NOW) == Window(
        at("2026-09-01"), at("2026-09-02T10:00")
    )


def test_a_window_may_have_only_a_beginning_or_only_an_end() -> None:
    assert read_window(None, "2026-09-01", None, NOW) == Window(at("2026-09-01"), at("2026-10-01T14:05:33"))
    assert read_window(None, None, "2026-09-01", NOW) == Window(None, at("2026-09-01"))
    assert read_window(None, None, None, NOW) is None


@pytest.mark.parametrize(
    ("last", "start", "end", "words"),
    [
        ("24", None, None, "such as 30m, 24h or 7d, not '24'"),
        ("0h", None, None, "not '0h'"),
        ("-1d", None, None, "not '-1d'"),
        ("\u0661d", None, None, "--last must be"),
        ("99999999999d", None, None, "--last must be"),
        ("1d", None, "0001-01-01", "before the first year"),
        ("1d", "2026-09-01", None, "--last and --from"),
        (None, "yesterday", None, "--from must be a date or a time, such as 2026-10-01"),
        (None, "0001-01-01T00:00:00+05:00", None, "--from must be"),
        (None, None, "2026-13-01", "--to must be"),
        (None, None, "2026-10-02", "--to is in the future"),
        (None, "2026-09-02", "2026-09-02", "it is empty"),
        (None, "2027-01-01", None, "it is empty"),
    ],
)
def test_what_is_no_window_is_refused_with_a_reason(
    last: str | None, start: str | None, end: str | None, words: str
) -> None:
    with pytest.raises(Rejected, match=re.escape(words)):
        read_window(last, start, end, NOW)


def test_a_window_is_two_filters_on_the_time_of_the_rows() -> None:
    window = Window(at("2026-09-01"), NOW)

    assert window.make_filters(TABLES["traces"]) == [
        {"type": "datetime", "column": "timestamp", "operator": ">=", "value": "2026-09-01T00:00:00Z"},
        {"type": "datetime", "column": "timestamp", "operator": "<", "value": "2026-10-01T14:05:33.250Z"},
    ]
    assert [each["operator"] for each in Window(None, NOW).make_filters(TABLES["scores"])] == ["<"]


def test_every_table_has_a_column_for_the_time_of_its_rows() -> None:
    assert {name: find_time_column(table) for name, table in TABLES.items()} == {
        "traces": "timestamp",
        "observations": "startTime",
        "events": "startTime",
        "scores": "timestamp",
        "sessions": "createdAt",
        "dataset_run_items": "createdAt",
        "dataset_items": "createdAt",
        "audit_logs": "createdAt",
    }
    for table in TABLES.values():
        if isinstance(table, ClickHouseTable) and table.from_events is not None:
            assert find_time_column(table.from_events) == find_time_column(table)
