import json
import logging

import pytest

from runtime.logs import JsonFormatter, RateLimit, TextFormatter, set_up_logging


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("waybill", logging.INFO, "x.py", 1, message, (), None)
    made.__dict__.update(extra)
    return made


def test_json_lines_carry_message_and_extras() -> None:
    line = json.loads(JsonFormatter().format(record("claimed", export_id="e", attempt=1)))

    assert (line["message"], line["level"], line["export_id"], line["attempt"]) == ("claimed", "INFO", "e", 1)
    assert line["time"].endswith("Z")


def test_a_text_record_is_one_line() -> None:
    line = TextFormatter().format(record("two\nlines", why="a\r\nb"))

    assert "\n" not in line
    assert line.endswith(r"INFO    two\nlines why=a\r\nb")


def test_tracebacks_are_kept() -> None:
    made = record("failed")
    with pytest.raises(LookupError) as caught:
        {"there": 1}["gone"]
    made.exc_info = (caught.type, caught.value, caught.tb)

    assert "KeyError: 'gone'" in json.loads(JsonFormatter().format(made))["traceback"]


def test_libraries_log_warnings_only_unless_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)

    set_up_logging("json", "INFO")

    assert logging.getLogger("aiokafka").getEffectiveLevel() == logging.WARNING
    assert isinstance(root.handlers[0].formatter, JsonFormatter)


def test_a_library_logs_the_same_message_once_a_minute() -> None:
    def record_of(name: str, message: str, at: float) -> logging.LogRecord:
        made = logging.LogRecord(name, logging.ERROR, "x.py", 1, message, (), None)
        made.created = at
        return made

    limit = RateLimit()
    records = [
        record_of("aiokafka.conn", "Unable to connect to %s", 100),
        record_of("aiokafka.conn", "Unable to connect to %s", 159),
        record_of("aiokafka.conn", "Something else", 159),
        record_of("aiokafka.conn", "Unable to connect to %s", 161),
        record_of("consumer.attempt", "failed", 100),
        record_of("consumer.attempt", "failed", 100),
    ]

    assert [limit.filter(each) for each in records] == [True, False, True, True, True, True]
