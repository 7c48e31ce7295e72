"""Writes figures, times and names the way a person reads them."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

# Left in, these let a name turn the direction of the words after it.
DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LINK = re.compile(r"(?:https?|file)://", re.IGNORECASE)
URL_SAFE = ":/?#[]@!$&'()*+,;=%-._~"
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
STEP = 1000


def one_line(text: str | None, *, limit: int) -> str:
    """Give the text as one line of `limit` characters at most, without control characters; "" for None."""
    kept = "".join(" " if _breaks(each) else each for each in text or "" if each not in DIRECTION_MARKS)
    line = " ".join(kept.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def link(url: str | None) -> str | None:
    """Give the URL fit for a mail, or None if there is none or its scheme is not one to click on."""
    return quote(url, safe=URL_SAFE) if url and LINK.match(url) else None


def size(count: int) -> str:
    """Write a number of bytes in decimal units: `1 byte`, `999 bytes`, `12.4 MB`."""
    if count == 1:
        return "1 byte"
    value, unit = float(count), 0
    # 999.95 and above would be rounded to four digits.
    while value >= STEP - 0.05 and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    return f"{count} bytes" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def rows(count: int) -> str:
    """Write a number of rows: `1 row`, `47,112 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def instant(moment: datetime) -> str:
    """Write an aware instant in UTC: `1 October 2026, 14:05 UTC`."""
    there = moment.astimezone(UTC)
    return f"{there.day} {there:%B %Y, %H:%M} UTC"


def span(length: timedelta) -> str:
    """Write how long something still lasts, in hours, or in minutes when that is below 90 minutes."""
    minutes = max(1, round(length / timedelta(minutes=1)))
    if minutes < 90:  # noqa: PLR2004 (the docstring names it)
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{round(minutes / 60)} hours"


def _breaks(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
