"""Declares how log lines look: JSON for machines, or a line for people on a terminal."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

LIBRARIES = ("aiokafka", "faust", "mode", "botocore", "aiobotocore", "urllib3", "alembic")
SAME_SECONDS = 60.0
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(fields: Mapping[str, object]) -> Iterator[None]:
    """Let every line of this thread or task carry `fields` while the block runs, as if given in `extra=`."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {**_about.get(), **{name: value for name, value in record.__dict__.items() if name not in _STANDARD}}


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


class Sparse(logging.Filter):
    """Lets a library say the same thing once a minute: an outage of a broker would fill the disk with it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass our own records, and those of libraries that are new, or were said a minute ago or longer."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        said, now = (record.name, str(record.msg)), record.created
        if now - self._said.get(said, 0) < SAME_SECONDS:
            return False
        self._said[said] = now
        return True


def _plain(value: object) -> str:
    return str(value).encode("unicode_escape").decode() if not str(value).isprintable() else str(value)


def set_up(style: str | None, level: str) -> None:
    """Send all log records to stderr in `style` ("json" or "text"; None picks text on a terminal, else JSON)."""
    style = style or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    handler.addFilter(Sparse())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in LIBRARIES:
        logging.getLogger(noisy).setLevel("WARNING" if level != "DEBUG" else "INFO")
