"""Parses shorthand filters, such as `latency>2.5` or `tags any-of a,b`, into filters of a stored query."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import Rejected
from pipeline.query.resolve_columns import find_column
from pipeline.tables import TableDeclaration, find_table

WORD_OPERATORS = {
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
    f"'scores.accuracy>=0.8' or 'userId is-null'; operators are =, <>, <, <=, >, >= and {', '.join(WORD_OPERATORS)}."
)

_SYMBOL = r"(?P<symbol><=|>=|<>|<|>|=)"
_WORD = rf"(?:^|(?<=\s))(?P<word>{'|'.join(WORD_OPERATORS)})(?=\s|$)"
_OPERATOR = re.compile(rf"{_SYMBOL}|{_WORD}")
_ENDS_A_NAME = re.compile(r"[.\s<>=]|$")


@dataclass(frozen=True)
class ShortFilter:
    """The parts of a short filter; `value` is text, whatever the type of the column."""

    column: str
    key: str | None
    operator: str
    value: str


def read_filters(table: str, texts: Sequence[str]) -> list[Any]:
    """Read filters on a table, each a short filter or JSON (an object, or a list of objects).

    Raises Rejected for a filter that can't be parsed, with a correct example. The result is not validated yet.
    """
    read: list[Any] = []
    for text in texts:
        if text.lstrip().startswith(("[", "{")):
            value = _read_json(text)
            read += value if isinstance(value, list) else [value]
        else:
            read.append(_read_short(find_table(table), text))
    return read


def split_list(text: str) -> list[str]:
    """Split a text at its commas, except those in quotes, and remove the blanks around its parts; raises Rejected."""
    try:
        return [part.strip() for part in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error as error:
        raise Rejected(f"The list {text[:80]!r} can't be split at its commas: {error}.") from error


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Rejected(f"The filter is nested too deeply. {HINT}") from error
    except ValueError as error:
        raise Rejected(f"The filter is not JSON ({error}). {HINT}") from error


def _read_short(table: TableDeclaration, text: str) -> dict[str, Any]:
    short = _split(table, text.strip())
    column = find_column(table, short.column)
    if column is None:
        known = ", ".join(each.id for each in table.filterables)
        raise Rejected(f"{table.name} has no filter column {short.column!r}. Its filter columns are: {known}.")
    if short.operator in {"is null", "is not null"}:
        return {"type": "null", "column": short.column, "operator": short.operator, "value": ""}
    keyed = {} if short.key is None else {"key": short.key}
    return {"column": short.column, **keyed, **_typed_filter(column.type, short)}


def _split(table: TableDeclaration, text: str) -> ShortFilter:
    """Split a filter into its parts; column names and quoted keys may contain operators."""
    column = _find_column(table, text)
    rest = text[len(column) :]
    key = None
    if rest.startswith('."'):
        key, length = _read_quoted(rest[1:])
        rest = rest[1 + length :]
    found = _OPERATOR.search(rest)
    if found is None:
        raise Rejected(f"The filter {text!r} has no operator. {HINT}")
    if key is None and rest.startswith("."):
        key = rest[1 : found.start()].strip()
    elif rest[: found.start()].strip():
        raise Rejected(f"The filter {text!r} can't be parsed. {HINT}")
    operator = found["symbol"] or WORD_OPERATORS[found["word"]]
    return ShortFilter(column, key, operator, rest[found.end() :].strip())


def _find_column(table: TableDeclaration, text: str) -> str:
    """Return the column name that a filter begins with: the longest known one, else the first word."""
    names = [name for column in table.filterables for name in (column.id, *column.names)]
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(name) and _ENDS_A_NAME.match(text, len(name)):
            return name
    found = _ENDS_A_NAME.search(text)
    return text[: found.start()] if found else text


def _read_quoted(text: str) -> tuple[str, int]:
    try:
        value, length = json.JSONDecoder().raw_decode(text)
    except ValueError as error:
        raise Rejected(f"The key in {text!r} can't be parsed: its quotes are not closed.") from error
    return value, length


def _typed_filter(column_type: str, short: ShortFilter) -> dict[str, Any]:  # noqa: PLR0911 (one return per type)
    """Return type, operator and value of a filter on a column of this type."""
    match column_type:
        case "string" | "stringOptions":
            return _text_filter(column_type, short)
        case "number" | "numberObject":
            return {"type": column_type, "operator": short.operator, "value": _read_number(short)}
        case "boolean" | "booleanObject":
            return {"type": column_type, "operator": short.operator, "value": _read_boolean(short)}
        case "arrayOptions" | "categoryOptions":
            return {"type": column_type, **_options_filter(short)}
        case "scores":
            return _typed_filter(_score_type(short), short)
        case "positionInTrace":
            return _position_filter(short)
        case _:
            return {"type": column_type, "operator": short.operator, "value": _unquote(short.value)}


def _text_filter(column_type: str, short: ShortFilter) -> dict[str, Any]:
    is_options = short.operator in {"any of", "none of", "<>"} or (
        short.operator == "=" and column_type == "stringOptions"
    )
    if is_options:
        return {"type": "stringOptions", **_options_filter(short)}
    return {"type": "string", "operator": short.operator, "value": _unquote(short.value)}


def _options_filter(short: ShortFilter) -> dict[str, Any]:
    """Read a list of options; with `=` and `<>` the whole text is one option."""
    if short.operator in {"=", "<>"}:
        return {"operator": "any of" if short.operator == "=" else "none of", "value": [_unquote(short.value)]}
    return {"operator": short.operator, "value": split_list(short.value)}


def _score_type(short: ShortFilter) -> str:
    if short.operator.endswith("of"):
        return "categoryOptions"
    if short.value in {"true", "false"}:
        return "booleanObject"
    return "numberObject" if _is_number(short.value) else "categoryOptions"


def _position_filter(short: ShortFilter) -> dict[str, Any]:
    if short.key is None:  # positionInTrace=root
        return {"type": "positionInTrace", "operator": short.operator, "key": short.value}
    return {"type": "positionInTrace", "operator": short.operator, "value": _read_number(short)}


def _unquote(text: str) -> str:
    """Remove quotes, which preserve white space."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return _read_quoted(text)[0]
    return text


def _read_number(short: ShortFilter) -> float:
    if not _is_number(short.value):
        raise Rejected(f"The value {short.value!r} for {short.column} must be a number.")
    try:
        return json.loads(short.value)  # type: ignore[no-any-return] # a JSON number
    except ValueError as error:
        raise Rejected(f"The value for {short.column} has more digits than a number can have.") from error


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", text) is not None


def _read_boolean(short: ShortFilter) -> bool:
    if short.value not in {"true", "false"}:
        raise Rejected(f"The value {short.value!r} for {short.column} must be true or false.")
    return short.value == "true"
