r"""Compares one expected cell with one read from a file: how each format shows each kind of value.

- Instants: ISO 8601 UTC with `Z`, cut to milliseconds; Parquet has all that is stored. Decimals and integers: all
  digits, as numbers, decimals without zeros at their end.
- JSON, JSONL: NaN and infinities are null; a text that is valid JSON, in a column that may hold some, is that value.
- CSV: null is an empty field, empty text is `""`; lists and JSON are JSON text; a text that a spreadsheet would run
  has an apostrophe in front, unless it is a plain number.
- JSON text with `\uXXXX` escapes is written with the characters, in every format, also where its end is missing.
  Escapes of control characters, quotes, backslashes and lone surrogates stay. It is always the same JSON value.
- A text is valid JSON when the parsers of Python and JavaScript accept it: NaN is not, lone surrogates and numbers of
  any size are. Python's parser gives up where values are nested too deep, after about a thousand levels.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.oracle.raw import exact_json
from tests.oracle.values import Bag, Cell, Json, MaybeJson, Metadata

_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)", re.DOTALL
)
_SPACE = " \t\r\n"
_WORDS = ("true", "false", "null", "-1")
_INSIDE = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*'
_TOKEN = re.compile(rf'true|false|null|-?\d[\d.eE+-]*|"{_INSIDE}"', re.ASCII)
_CUT_STRING = re.compile(rf'"{_INSIDE}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?')
_BLANKS = " \t\n\v\f\r\0\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))
_PLAIN_NUMBER = re.compile(r" *[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def same_cell(wanted: Cell, found: Any, file_format: str, *, neutralised: bool) -> bool:
    """Whether a cell of a file is the expected one."""
    match file_format:
        case "CSV":
            return _same_csv(wanted, found, neutral if neutralised else str)
        case "PARQUET":
            return _same_parquet(wanted, found)
        case "JSON" | "JSONL":
            return _same_json(wanted, found)
        case _:
            raise LookupError(f"no comparison of cells for {file_format}: add one here")


def neutral(text: str) -> str:
    """A text as CSV shows it when formulas are disarmed."""
    runs = text.startswith(("\t", "\r", "\n")) or text.lstrip(_BLANKS).startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
    return f"'{text}" if runs and not _PLAIN_NUMBER.fullmatch(text) else text


def same(wanted: Any, found: Any) -> bool:
    """Whether two JSON values are the same: numbers by value, true is not 1, objects in any order."""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict) and wanted.keys() == found.keys() and all(same(wanted[k], found[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(same, wanted, found))
    if isinstance(wanted, float):
        return found is None if not math.isfinite(wanted) else _is_number(found) and _close(wanted, float(found))
    return bool(type(wanted) is type(found) or (_is_number(wanted) and _is_number(found))) and bool(wanted == found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _close(wanted: float, found: float) -> bool:
    """Averages may be added up in another order."""
    return wanted == found or math.isclose(wanted, found, rel_tol=1e-12)


def standing(text: str) -> tuple[bool, Any]:
    """Whether a text is valid JSON, and its value."""
    try:
        return True, exact_json(text)
    except (ValueError, RecursionError):
        return False, None


def unescaped(text: str) -> str:
    r"""JSON text with the characters that its `\uXXXX` escapes stand for, where the text stays the same JSON."""
    return _ESCAPE.sub(_character, text)


def _character(escape: re.Match[str]) -> str:
    high, low, single = escape.groups()
    if high:
        return bytes.fromhex(high + low).decode("utf-16-be")
    if not single:
        return escape[0]
    character = chr(int(single, 16))
    return escape[0] if character in '"\\' or unicodedata.category(character) in {"Cc", "Cs"} else character


def cut_off(text: str) -> bool:
    """Whether a text is a JSON object, list or string without its end, as far as its tokens tell."""
    rest = text.lstrip(_SPACE)
    if not rest.startswith(("{", "[", '"')):
        return False
    alone = rest.startswith('"')
    while rest:
        if rest[0] in "{}[],:" + _SPACE:
            rest = rest[1:]
        elif found := _TOKEN.match(rest):
            if alone:
                return False
            rest = rest[found.end() :]
        else:
            return _CUT_STRING.fullmatch(rest) is not None or any(word.startswith(rest) for word in _WORDS)
    return True


def _text(text: str) -> str:
    """A text that may hold JSON, where a format carries texts."""
    return unescaped(text) if standing(text)[0] or cut_off(text) else text


def _value(text: str) -> Any:
    """What it is where a format carries values."""
    valid, value = standing(text)
    return value if valid else text


def _same_json(wanted: Cell, found: Any) -> bool:  # noqa: PLR0911 (one for each kind)
    match wanted:
        case MaybeJson(text):
            return same(_value(text) if standing(text)[0] else _text(text), found)
        case Metadata(values):
            return _same_metadata(values, found, parsed=True)
        case Json(value):
            return same(value, found)
        case Bag(values):
            return isinstance(found, list) and _same_bag(values, found)
        case datetime():
            return isinstance(found, str) and _instant(found) == _in_milliseconds(wanted)
        case Decimal():
            return _is_number(found) and f"{Decimal(found):f}" == digits(wanted)
        case _:
            return same(wanted, found)


def _same_metadata(values: Any, found: Any, *, parsed: bool) -> bool:
    if not parsed:
        return same(dict(values), found)
    return (
        isinstance(found, dict)
        and found.keys() == values.keys()
        and all(same(_value(text), found[key]) for key, text in values.items())
    )


def _same_bag(values: tuple[float | str, ...], found: list[Any]) -> bool:
    """Whether a list has the values in any order; a number that JSON can't write is null."""
    numbers = sorted(float(value) for value in values if not isinstance(value, str) and math.isfinite(value))
    there = sorted(float(value) for value in found if _is_number(value) and math.isfinite(value))
    texts = Counter(value for value in values if isinstance(value, str))
    return (
        len(values) == len(found)
        and len(numbers) == len(there)
        and all(map(_close, numbers, there))
        and texts == Counter(value for value in found if isinstance(value, str))
    )


def _instant(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if _ISO.fullmatch(text) else None


def _in_milliseconds(instant: datetime) -> datetime:
    """An instant without the digits behind its milliseconds."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def digits(value: Decimal) -> str:
    """A decimal with all digits, without zeros at the end of its decimal places."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _same_csv(  # noqa: PLR0911 (one for each kind)
    wanted: Cell, found: str | None, shown: Callable[[str], str]
) -> bool:
    if wanted is None or found is None:
        return wanted is None and found is None
    match wanted:
        case str():
            return found == shown(wanted)
        case MaybeJson(text):
            return found == shown(_text(text))
        case bool():
            return found == ("true" if wanted else "false")
        case float():
            return _same_float(wanted, float(found))
        case int():
            return Decimal(found) == wanted
        case Decimal():
            return found == digits(wanted)
        case datetime():
            return _instant(found) == _in_milliseconds(wanted)
        case Metadata(values, parsed):
            return _same_metadata(values, exact_json(found), parsed=parsed)
        case _:
            return _same_json(wanted, exact_json(found))


def _same_float(wanted: float, found: float) -> bool:
    return math.isnan(found) if math.isnan(wanted) else _close(wanted, found)


def _same_parquet(wanted: Cell, found: Any) -> bool:  # noqa: PLR0911 (one for each kind)
    if wanted is None or found is None:
        return wanted is None and found is None
    match wanted:
        case MaybeJson(text):
            return bool(found == _text(text))
        case Metadata(values, parsed):
            return isinstance(found, str) and _same_metadata(values, exact_json(found), parsed=parsed)
        case Json():
            return isinstance(found, str) and _same_json(wanted, exact_json(found))
        case Bag(values):
            # Numbers and texts under one name have no common type but JSON's.
            return _same_bag(values, exact_json(found) if isinstance(found, str) else found)
        case float():
            return isinstance(found, float) and _same_float(wanted, found)
        case Decimal():
            return _is_number(found) and (float(wanted) == found if isinstance(found, float) else wanted == found)
        case datetime():
            return isinstance(found, datetime) and found.utcoffset() is not None and found.astimezone(UTC) == wanted
        case _:
            return same(wanted, found)
