"""Declares how log lines look: JSON for machines, or a line for people on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what `extra=` carried, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; values that JSON does not know are written as text."""
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
    """A line for a person: time, level, message, then name=value for what `extra=` carried."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; control characters in values are escaped, so one record stays one line."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        extras = "".join(f" {name}={_plain(value)}" for name, value in _extras(record).items())
        line = f"{time} {record.levelname:<7} {_plain(record.getMessage())}{extras}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: object) -> str:
    return str(value).encode("unicode_escape").decode() if not str(value).isprintable() else str(value)


def set_up(style: str | None, level: str) -> None:
    """Send all log records to stderr in `style` ("json" or "text"; None picks text on a terminal, else JSON)."""
    style = style or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("aiokafka", "faust", "mode", "botocore", "aiobotocore", "urllib3", "alembic"):
        logging.getLogger(noisy).setLevel("WARNING" if level != "DEBUG" else "INFO")
