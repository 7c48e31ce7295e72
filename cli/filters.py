"""Reads filters as people type them, `latency>2.5` or `tags any-of a,b`, into those of a stored query."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import Rejected
from pipeline.query.filters import column_named, filtered
from pipeline.query.order import sorted_by
from pipeline.request import ExportQuery
from pipeline.tables import TableDeclaration, find_table, resolve_table

WORDS = {
    "any-of": "any of",
    "none-of": "none of",
    "all-of": "all of",
    "contains": "contains",
    "does-not-contain": "does not contain",
    "starts-with": "starts with",
    "ends-with": "ends with",
    "matches": "matches",
    "is-null": "is null",
    "is-not-null": "is not null",
}
HINT = (
    "Write it as COLUMN[.KEY] OPERATOR VALUE, such as level=ERROR, 'latency>2.5', 'tags any-of a,b', "
    f"'scores.accuracy>=0.8' or 'userId is-null'; operators are =, <>, <, <=, >, >= and {', '.join(WORDS)}."
)

_SYMBOL = r"(?P<symbol><=|>=|<>|<|>|=)"
_WORD = rf"(?:^|(?<=\s))(?P<word>{'|'.join(WORDS)})(?=\s|$)"
_OPERATOR = re.compile(rf"{_SYMBOL}|{_WORD}")
_ENDS_A_NAME = re.compile(r"[.\s<>=]|$")


@dataclass(frozen=True)
class Asked:
    """A filter's words: the text of its value is not yet read as what the column holds."""

    column: str
    key: str | None
    operator: str
    value: str


def read_filters(table: str, texts: Sequence[str]) -> list[Any]:
    """Read filters on a table, each typed in short or as JSON (an object, or a list of them).

    Raises Rejected, with what would be right, for what can't be read; what is read need not be valid yet.
    """
    read: list[Any] = []
    for text in texts:
        if text.lstrip().startswith(("[", "{")):
            value = _json(text)
            read += value if isinstance(value, list) else [value]
        else:
            read.append(_short(find_table(table), text))
    return read


def check(query: ExportQuery) -> None:
    """Raise Rejected for a filter or an order that the table can't honour, as the export would."""
    table = resolve_table(query)
    for each in query.filter or ():
        filtered(table, each)
    if query.order_by is not None:
        sorted_by(table, query.order_by)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Rejected(f"The filter is not JSON ({error}). {HINT}") from error


def _short(table: TableDeclaration, text: str) -> dict[str, Any]:
    asked = _asked(table, text.strip())
    column = column_named(table, asked.column)
    if column is None:
        known = ", ".join(each.id for each in table.filterables)
        raise Rejected(f"{table.name} has no column {asked.column!r} to filter by. Columns that it has: {known}.")
    if asked.operator in {"is null", "is not null"}:
        return {"type": "null", "column": asked.column, "operator": asked.operator, "value": ""}
    keyed = {} if asked.key is None else {"key": asked.key}
    return {"column": asked.column, **keyed, **_typed(column.type, asked)}


def _asked(table: TableDeclaration, text: str) -> Asked:
    """Take a filter apart: names of columns may hold what operators are made of, and so may keys in quotes."""
    column = _column(table, text)
    rest = text[len(column) :]
    key = None
    if rest.startswith('."'):
        key, length = _quoted(rest[1:])
        rest = rest[1 + length :]
    found = _OPERATOR.search(rest)
    if found is None:
        raise Rejected(f"The filter {text!r} has no operator. {HINT}")
    if key is None and rest.startswith("."):
        key = rest[1 : found.start()].strip()
    elif rest[: found.start()].strip():
        raise Rejected(f"The filter {text!r} can't be read. {HINT}")
    operator = found["symbol"] or WORDS[found["word"]]
    return Asked(column, key, operator, rest[found.end() :].strip())


def _column(table: TableDeclaration, text: str) -> str:
    """Name the column that a filter begins with: the longest that fits, else what stands there."""
    names = [name for column in table.filterables for name in (column.id, *column.names)]
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(name) and _ENDS_A_NAME.match(text, len(name)):
            return name
    found = _ENDS_A_NAME.search(text)
    return text[: found.start()] if found else text


def _quoted(text: str) -> tuple[str, int]:
    try:
        value, length = json.JSONDecoder().raw_decode(text)
    except ValueError as error:
        raise Rejected(f"The key in {text!r} can't be read: its quotes are not closed.") from error
    return value, length


def _typed(column_type: str, asked: Asked) -> dict[str, Any]:  # noqa: PLR0911 (one return a type)
    """Give type, operator and value of a filter on a column of a type."""
    match column_type:
        case "string" | "stringOptions":
            return _text(column_type, asked)
        case "number" | "numberObject":
            return {"type": column_type, "operator": asked.operator, "value": _number(asked)}
        case "boolean" | "booleanObject":
            return {"type": column_type, "operator": asked.operator, "value": _truth(asked)}
        case "arrayOptions" | "categoryOptions":
            return {"type": column_type, **_options(asked)}
        case "scores":
            return _typed(_kind_of_score(asked), asked)
        case "positionInTrace":
            return _place(asked)
        case _:
            return {"type": column_type, "operator": asked.operator, "value": _plain(asked.value)}


def _text(column_type: str, asked: Asked) -> dict[str, Any]:
    among = asked.operator in {"any of", "none of", "<>"} or (asked.operator == "=" and column_type == "stringOptions")
    if among:
        return {"type": "stringOptions", **_options(asked)}
    return {"type": "string", "operator": asked.operator, "value": _plain(asked.value)}


def _options(asked: Asked) -> dict[str, Any]:
    """Read a list; `=` and `<>` take the whole text as its one option."""
    if asked.operator in {"=", "<>"}:
        return {"operator": "any of" if asked.operator == "=" else "none of", "value": [_plain(asked.value)]}
    listed = next(csv.reader([asked.value], skipinitialspace=True), [])
    return {"operator": asked.operator, "value": [option.strip() for option in listed]}


def _kind_of_score(asked: Asked) -> str:
    if asked.operator.endswith("of"):
        return "categoryOptions"
    if asked.value in {"true", "false"}:
        return "booleanObject"
    return "numberObject" if _is_number(asked.value) else "categoryOptions"


def _place(asked: Asked) -> dict[str, Any]:
    if asked.key is None:  # positionInTrace=root
        return {"type": "positionInTrace", "operator": asked.operator, "key": asked.value}
    return {"type": "positionInTrace", "operator": asked.operator, "value": _number(asked)}


def _plain(text: str) -> str:
    """Take off quotes, which keep white space."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return _quoted(text)[0]
    return text


def _number(asked: Asked) -> float:
    if not _is_number(asked.value):
        raise Rejected(f"The value {asked.value!r} for {asked.column} should be a number.")
    return json.loads(asked.value)  # type: ignore[no-any-return] # a JSON number


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", text) is not None


def _truth(asked: Asked) -> bool:
    if asked.value not in {"true", "false"}:
        raise Rejected(f"The value {asked.value!r} for {asked.column} should be true or false.")
    return asked.value == "true"
