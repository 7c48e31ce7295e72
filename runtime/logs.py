"""Formats log lines: JSON for machines, or text for people on a terminal."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

LIBRARIES = ("aiokafka", "faust", "mode", "botocore", "aiobotocore", "alembic", "azure", "google", "msal")
SAME_SECONDS = 60.0
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))


@contextmanager
def add_log_fields(fields: Mapping[str, object]) -> Iterator[None]:
    """Add `fields` to each log line of this thread or task during the block, as if they were given in `extra=`."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {**_fields.get(), **{name: value for name, value in record.__dict__.items() if name not in _STANDARD}}


class JsonFormatter(logging.Formatter):
    """Writes a JSON object per line: time, level, logger, message, the fields of `extra=`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; values that JSON has no type for are written as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Writes a line for people: time, level, message, then the fields of `extra=` as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; control characters are escaped, so that it stays one line."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        extras = "".join(f" {name}={_plain(value)}" for name, value in _extras(record).items())
        line = f"{time} {record.levelname:<7} {_plain(record.getMessage())}{extras}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class RateLimit(logging.Filter):
    """Limits a library to one line per message and minute, because an outage of a broker would fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass Waybill's records, and those of libraries that were not logged within the last minute."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        key, now = (record.name, str(record.msg)), record.created
        if now - self._last.get(key, 0) < SAME_SECONDS:
            return False
        self._last[key] = now
        return True


def _plain(value: object) -> str:
    return str(value).encode("unicode_escape").decode() if not str(value).isprintable() else str(value)


def set_up_logging(style: str | None, level: str) -> None:
    """Send log records to stderr in `style`: "json" or "text"; None means text on a terminal and JSON elsewhere."""
    style = style or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for repeated in ("clickhouse_connect", "urllib3"):  # what they log is also in their exceptions
        logging.getLogger(repeated).setLevel(logging.CRITICAL)
    for noisy in LIBRARIES:
        logging.getLogger(noisy).setLevel("WARNING" if level != "DEBUG" else "INFO")
