"""Formats numbers, times and names for people."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

# These characters would change the direction of the text after a name.
DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CLICKABLE = re.compile(r"(?:https?|file)://", re.IGNORECASE)
URL_SAFE = ":/?#[]@!$&'()*+,;=%-._~"
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
STEP = 1000


def one_line(text: str | None, *, limit: int) -> str:
    """Return the text as one line of up to `limit` characters, without control characters; "" for None."""
    kept = "".join(" " if _is_control(each) else each for each in text or "" if each not in DIRECTION_MARKS)
    line = " ".join(kept.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def end_sentence(text: str) -> str:
    """Return the text with a full stop if its last character is alphanumeric."""
    return f"{text}." if text[-1:].isalnum() else text


def safe_link(url: str | None) -> str | None:
    """Return the URL escaped for an email, or None if there is none or its scheme is not safe to click."""
    return quote(url, safe=URL_SAFE) if url and CLICKABLE.match(url) else None


def format_size(count: int) -> str:
    """Format a number of bytes in decimal units: `1 byte`, `999 bytes`, `12.4 MB`."""
    if count == 1:
        return "1 byte"
    value, unit = float(count), 0
    # 999.95 and above would be rounded to four digits.
    while value >= STEP - 0.05 and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    return f"{count} bytes" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def format_rows(count: int) -> str:
    """Format a number of rows: `1 row`, `47,112 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def format_instant(moment: datetime) -> str:
    """Format an aware datetime in UTC: `1 October 2026, 14:05 UTC`."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def format_duration(length: timedelta) -> str:
    """Format a duration in minutes below 90 minutes, in hours below 48 hours, and in days and hours from there."""
    minutes = max(1, round(length / timedelta(minutes=1)))
    if minutes < 90:  # noqa: PLR2004 (the docstring names it)
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    days, hours = divmod(round(minutes / 60), 24)
    if days < 2:  # noqa: PLR2004 (the docstring names it)
        return f"{days * 24 + hours} hours"
    return f"{days} days" if hours == 0 else f"{days} days and {'1 hour' if hours == 1 else f'{hours} hours'}"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
