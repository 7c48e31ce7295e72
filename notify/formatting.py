"""Formats numbers, times and names for people."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from notify.language import ENGLISH, Language

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


def format_size(count: int, language: Language = ENGLISH) -> str:
    """Format a number of bytes in decimal units: `1 byte`, `999 bytes`, `12.4 MB`."""
    if count == 1:
        return language.translate("1 byte")
    value, unit = float(count), 0
    # 999.95 and above would be rounded to four digits.
    while value >= STEP - 0.05 and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    if unit == 0:
        return language.translate("{count} bytes", count=str(count))
    return f"{value:.1f} {UNITS[unit]}".replace(".", language.decimal)


def format_rows(count: int, language: Language = ENGLISH) -> str:
    """Format a number of rows: `1 row`, `47,112 rows`."""
    return _format_plural("row", count, language)


def format_instant(moment: datetime, language: Language = ENGLISH) -> str:
    """Format an aware datetime in UTC: `1 October 2026, 14:05 UTC`."""
    utc = moment.astimezone(UTC)
    month = language.name_month(utc.month)
    text = "{day} {month} {year}, {time} UTC"
    return language.translate(text, day=str(utc.day), month=month, year=f"{utc:%Y}", time=f"{utc:%H:%M}")


def format_duration(length: timedelta, language: Language = ENGLISH) -> str:
    """Format a duration in minutes below 90 minutes, in hours below 48 hours, and in days and hours from there."""
    minutes = max(1, round(length / timedelta(minutes=1)))
    if minutes < 90:  # noqa: PLR2004 (the docstring names it)
        return _format_plural("minute", minutes, language)
    days, hours = divmod(round(minutes / 60), 24)
    if days < 2:  # noqa: PLR2004 (the docstring names it)
        return _format_plural("hour", days * 24 + hours, language)
    whole = _format_plural("day", days, language)
    if hours == 0:
        return whole
    return language.translate("{days} and {hours}", days=whole, hours=_format_plural("hour", hours, language))


def _format_plural(unit: str, count: int, language: Language) -> str:
    if count == 1:
        return language.translate(f"1 {unit}")
    return language.translate(f"{{count}} {unit}s", count=language.format_count(count))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
