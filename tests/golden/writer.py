r"""Writes expected rows as files, one value at a time, with Python's own json and csv rules: no encoder of the product.

Where `tests.oracle.cells` says what a cell must mean, this says how it is spelt:

- JSON is compact; comments and the documents of SQL databases have a space after `,` and `:`. A text that is JSON
  stands as it came, on one line, its `\uXXXX` escapes as characters. Numbers have their shortest digits, and
  instants three digits of a second.
- JSONL ends each row with a line feed; JSON has a row a line. CSV quotes what needs it, and ends lines with CRLF.
- Parquet is written as the JSON of its typed values: `{"decimal": …}`, `{"instant": …}`, `{"float": …}` say what JSON
  can't.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.golden.cases import PARQUET
from tests.oracle.cells import digits, neutral, standing, unescaped
from tests.oracle.values import Bag, Cell, Expected, Json, MaybeJson, Metadata

Row = Mapping[str, Cell]

SPACED = frozenset({"comments", "input", "expectedOutput", "metadata"})


def written(expected: Expected, file_format: str) -> bytes:
    """The file of a format, of Parquet the JSON of its typed values."""
    if file_format == PARQUET:
        return _parquet(expected).encode()
    rows = tuple({name: _spelt(cell) for name, cell in row.items()} for row in expected.rows)
    return WRITE[file_format](replace(expected, rows=rows)).encode()


def _spelt(cell: Cell) -> Cell:
    """An instant as its text, and a decimal with the digits that it needs."""
    if isinstance(cell, datetime):
        return cell.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Decimal(digits(cell)) if isinstance(cell, Decimal) else cell


def _csv(expected: Expected) -> str:
    lines = [[_quoted(neutral(name)) for name in expected.columns]]
    lines += [[_field(name, row[name]) for name in expected.columns] for row in expected.rows]
    return "".join(f"{','.join(line)}\r\n" for line in lines)


def _field(name: str, cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case str() | MaybeJson():
            return _quoted(neutral(_text(cell)))
        case float():
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(str(cell), _number(cell))
        case _:
            return _quoted(_json(name, cell, parsed=isinstance(cell, Metadata) and cell.parsed))


def _quoted(text: str) -> str:
    if text and not any(mark in text for mark in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _text(cell: str | MaybeJson) -> str:
    if isinstance(cell, str):
        return cell
    return unescaped(cell.text) if standing(cell.text)[0] else cell.text


def _jsonl(expected: Expected) -> str:
    return "".join(f"{_object(expected.columns, row)}\n" for row in expected.rows)


def _json_file(expected: Expected) -> str:
    rows = ",\n".join(_object(expected.columns, row) for row in expected.rows)
    return f"[\n{rows}\n]\n" if rows else "[]\n"


def _object(columns: Sequence[str], row: Row) -> str:
    pairs = (f"{_string(name)}:{_json(name, row[name], parsed=True)}" for name in columns)
    return f"{{{','.join(pairs)}}}"


def _json(name: str, cell: Cell, *, parsed: bool) -> str:
    """A cell as JSON; `parsed`, texts that are JSON are the values that they hold."""
    match cell:
        case None:
            return "null"
        case MaybeJson(text):
            return _held(text)
        case Metadata(values, _):
            pairs = (f"{_string(key)}:{_held(text) if parsed else _string(text)}" for key, text in values.items())
            return f"{{{','.join(pairs)}}}"
        case Json(value):
            return _value(value, ", " if name in SPACED else ",", ": " if name in SPACED else ":")
        case Bag(values):
            return f"[{','.join(_score(value) for value in in_order(values))}]"
        case _:
            return _score(cell) if isinstance(cell, float) else _value(cell)


def in_order(values: Sequence[float | str]) -> list[float | str]:
    """The values of a score: numbers by size, NaN last, then texts."""
    numbers = [value for value in values if not isinstance(value, str)]
    texts = [value for value in values if isinstance(value, str)]
    return [*sorted(numbers, key=lambda number: (math.isnan(number), number)), *sorted(texts)]


def _held(text: str) -> str:
    if not standing(text)[0]:
        return _string(text)
    return unescaped(text).replace("\r", " ").replace("\n", " ")


def _value(value: Any, comma: str = ",", colon: str = ":") -> str:  # noqa: PLR0911 (one for each kind)
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return _string(value)
        case float():
            return _float(value) if math.isfinite(value) else "null"
        case int():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case list():
            return f"[{comma.join(_value(each, comma, colon) for each in value)}]"
        case _:
            pairs = (f"{_string(key)}{colon}{_value(each, comma, colon)}" for key, each in value.items())
            return f"{{{comma.join(pairs)}}}"


def _score(value: float | str) -> str:
    if isinstance(value, str):
        return _string(value)
    return _number(value) if math.isfinite(value) else "null"


def _number(value: float) -> str:
    """A number of a score; one in a document keeps the zero behind its point."""
    return _float(value + 0.0).removesuffix(".0")


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _float(value: float) -> str:
    return repr(value)


def _parquet(expected: Expected) -> str:
    rows = [{name: _typed(name, row[name]) for name in expected.columns} for row in expected.rows]
    return listed(expected.columns, rows)


def listed(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The JSON of the typed values of a Parquet file."""
    lines = [json.dumps(list(columns), ensure_ascii=False), *(json.dumps(row, ensure_ascii=False) for row in rows)]
    return "\n".join([*lines, ""])


def _typed(name: str, cell: Cell) -> Any:
    match cell:
        case MaybeJson():
            return _text(cell)
        case Metadata() | Json():
            return _json(name, cell, parsed=isinstance(cell, Metadata) and cell.parsed)
        case Bag(values):
            return [typed(value) for value in in_order(values)]
        case _:
            return typed(cell)


def typed(value: Any) -> Any:
    """A value of a Parquet file, with its type where JSON has none for it."""
    match value:
        case float():
            return {"float": repr(value)}
        case Decimal():
            return {"decimal": f"{value.normalize():f}"}
        case datetime():
            return {"instant": value.isoformat()}
        case list():
            return [typed(each) for each in value]
        case _:
            return value


WRITE: Mapping[str, Callable[[Expected], str]] = {
    "CSV": _csv,
    "JSON": _json_file,
    "JSONL": _jsonl,
}
