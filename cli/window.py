"""Reads the window of time that `create --last`, `--from` and `--to` ask for."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from config.errors import Rejected
from pipeline.tables import TableDeclaration
from pipeline.tables.columns import Filterable

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LAST = re.compile(r"(?P<count>[1-9][0-9]{0,4})(?P<unit>[mhd])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Window:
    """The time from `start`, or from the first row if it is None, until just before `end`."""

    start: datetime | None
    end: datetime

    def make_filters(self, table: TableDeclaration) -> list[dict[str, Any]]:
        """Return the filters of a stored query on the time of the table's rows."""
        column = find_time_column(table)
        bounds = ((">=", self.start), ("<", self.end))
        return [
            {"type": "datetime", "column": column, "operator": operator, "value": _format(bound)}
            for operator, bound in bounds
            if bound is not None
        ]

    def __str__(self) -> str:
        """Return it as part of the export's name."""
        until = _format(self.end)
        return f"until {until}" if self.start is None else f"{_format(self.start)} to {until}"


def read_window(last: str | None, start: str | None, end: str | None, now: datetime) -> Window | None:
    """Read the options, of which any may be missing; None if all are. Raises Rejected for those that make no window.

    `last` without `end` ends with the last whole minute, hour or day in UTC, whichever its unit is, so that a command
    that is repeated soon means the same window.
    """
    if last is None and start is None and end is None:
        return None
    if last is not None and start is not None:
        raise Rejected("--last and --from both say where the window begins: choose one.")
    until = None if end is None else _read_time("--to", end)
    if until is not None and until > now:
        raise Rejected(f"--to is in the future: {end}. Rows that do not exist yet can't be exported.")
    if last is not None:
        window = _read_last(last, until, now)
    else:
        window = Window(None if start is None else _read_time("--from", start), until or now.replace(microsecond=0))
    if window.start is not None and window.start >= window.end:
        raise Rejected(f"The window begins at {_format(window.start)} and ends at {_format(window.end)}: it is empty.")
    return window


def find_time_column(table: TableDeclaration) -> str:
    """Return the filter column for the time of the table's rows, the one that the cutoff applies to."""
    columns = (each for each in table.filterables if isinstance(each, Filterable))
    return next(each.id for each in columns if each.value is table.moment)


def _read_last(text: str, until: datetime | None, now: datetime) -> Window:
    found = _LAST.fullmatch(text)
    if found is None:
        raise Rejected(f"--last must be a number of minutes, hours or days, such as 30m, 24h or 7d, not {text!r}.")
    unit = _UNITS[found["unit"]]
    until = until or now - (now - _EPOCH) % unit
    try:
        return Window(until - int(found["count"]) * unit, until)
    except OverflowError as error:
        raise Rejected(f"--last {text} begins before the first year.") from error


def _read_time(option: str, text: str) -> datetime:
    try:
        read = datetime.fromisoformat(text)
        return read.astimezone(UTC) if read.tzinfo is not None else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        example = "such as 2026-10-01, 2026-10-01T14:05:00Z or 2026-10-01T16:05:00+02:00"
        raise Rejected(f"{option} must be a date or a time, {example}, not {text!r}.") from error


def _format(instant: datetime) -> str:
    precision = "seconds" if instant.microsecond == 0 else "milliseconds"
    return instant.isoformat(timespec=precision).replace("+00:00", "Z")
