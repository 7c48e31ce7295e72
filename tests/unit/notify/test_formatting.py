from datetime import UTC, datetime, timedelta, timezone

import pytest

from notify import formatting


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ""),
        ("", ""),
        ("Ada", "Ada"),
        ("Ada\r\nBcc: eve@example.com", "Ada Bcc: eve@example.com"),
        ("a\x00b\u2028c\u2029d\x85e", "a b c d e"),
        ("  much \t space  ", "much space"),
        ("abc\u202edef", "abcdef"),
        ("👩\u200d💻 Zoë 日本", "👩\u200d💻 Zoë 日本"),
        ("x" * 41, "x" * 39 + "…"),
    ],
)
def test_a_text_becomes_one_line(given: str | None, expected: str) -> None:
    assert formatting.one_line(given, limit=40) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_431_988, "12.4 MB"),
        (5_000_000_000_000, "5.0 TB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_sizes_are_formatted_in_decimal_units(count: int, expected: str) -> None:
    assert formatting.format_size(count) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, "0 rows"), (1, "1 row"), (1_500_000, "1,500,000 rows")])
def test_rows_are_formatted_with_separators(count: int, expected: str) -> None:
    assert formatting.format_rows(count) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (timedelta(seconds=3), "1 minute"),
        (timedelta(minutes=40), "40 minutes"),
        (timedelta(minutes=89), "89 minutes"),
        (timedelta(minutes=90), "2 hours"),
        (timedelta(hours=24) - timedelta(seconds=4), "24 hours"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(hours=48), "2 days"),
        (timedelta(hours=49), "2 days and 1 hour"),
        (timedelta(days=7) - timedelta(seconds=4), "7 days"),
        (timedelta(days=7) - timedelta(hours=2), "6 days and 22 hours"),
    ],
)
def test_durations_are_formatted_in_minutes_hours_or_days(length: timedelta, expected: str) -> None:
    assert formatting.format_duration(length) == expected


def test_an_instant_is_formatted_in_utc() -> None:
    assert formatting.format_instant(datetime(2026, 3, 1, 9, 5, tzinfo=UTC)) == "1 March 2026, 09:05 UTC"
    assert (
        formatting.format_instant(datetime(2026, 3, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))))
        == "28 February 2026, 23:05 UTC"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/x?y=1&z=%20", "https://a.example/x?y=1&z=%20"),
        ("file:///tmp/my exports/ü.csv", "file:///tmp/my%20exports/%C3%BC.csv"),
        ('https://a.example/"><script>', "https://a.example/%22%3E%3Cscript%3E"),
        ("https://a.example/\r\nBcc: x", "https://a.example/%0D%0ABcc:%20x"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("//a.example/x", None),
        ("https:a", None),
        ("", None),
        (None, None),
    ],
)
def test_only_links_that_are_safe_to_click_are_kept(url: str | None, expected: str | None) -> None:
    assert formatting.safe_link(url) == expected
