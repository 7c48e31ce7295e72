"""Binds values for ClickHouse, and builds the conditions that filters and searches use."""

import operator
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, Date, DateTime64
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Decimal as ChDecimal
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from clickhouse_connect.cc_sqlalchemy.sql.clauses import Lambda
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    String,
    and_,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    literal,
    not_,
    or_,
    true,
)

# The server rejects a bound value of more than 128 KiB (http_max_field_value_size), and escapes may double the size.
MAX_BOUND_BYTES = 48 * 1024
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# toDate() counts days modulo 65,536, and toStartOfMinute() seconds modulo 2 ** 32: from this day on, their results may
# stand for years from 1900 to 1969.
FAR_FUTURE = datetime(2036, 2, 6, tzinfo=UTC)
# The server computes days in its own time zone.
LARGEST_ZONE_OFFSET = timedelta(days=1)
BYTE_ORDER_MARK = "\ufeff"
INSTANT = DateTime64(6, "UTC")

DECIMAL_DIGITS = 38
LARGEST_UNSCALED = 10**DECIMAL_DIGITS - 1

COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}

_EXACT = Context(prec=400)
_WORD = re.compile(r"[0-9a-z\u0080-\U0010ffff]+")
# ClickHouse refuses lone surrogates and numbers beyond the range of a double, which are valid JSON. Texts that begin
# like JSON and may have either are checked again without them; the server evaluates that for no other text.
_MAY_BE_REFUSED = r"(?s)^[ \t\r\n]*(?:[0-9]|[\[{\"-].*(?:\\u[dD][89a-fA-F]|[0-9][eE]\+?[0-9]|[0-9]{300}))"
_REFUSED = (
    # The escaped backslashes are matched too, because an `u` behind one begins no escape.
    (r"\\\\|\\u[0-9a-fA-F]{4}", "x"),
    (r"([1-9])[0-9]{300,}", r"\1"),
    # The sign keeps the digits behind an invalid `\u` from becoming a valid escape.
    (r"([0-9])[eE]\+?[0-9]+", r"\1e+0"),
)


def bind_text(value: str) -> ColumnElement[str]:
    """Bind a text."""
    return literal(value, String())


def bind_number(value: float) -> ColumnElement[float]:
    """Bind a number."""
    return literal(float(value), Float())


def compare_decimal(value: ColumnElement[Any], asked: str, wanted: float, places: int) -> ColumnElement[bool]:
    """Compare a decimal with `places` decimal places (0: an integer) with a number, exactly; null matches nothing."""
    scaled = Decimal(repr(wanted)).scaleb(places, _EXACT)
    # Round towards minus infinity, and clamp to the range of the type, which is beyond any value.
    whole = max(-LARGEST_UNSCALED, min(LARGEST_UNSCALED, int(scaled.to_integral_value(ROUND_FLOOR))))
    limit = bindparam(
        None, f"{Decimal(whole).scaleb(-places, _EXACT):f}", type_=ChDecimal(DECIMAL_DIGITS, places), unique=True
    )
    hit = whole == scaled
    match asked:
        case "=":
            return value == limit if hit else false()
        case ">=" | "<" if hit:
            return value >= limit if asked == ">=" else value < limit
        case ">" | ">=":
            return value > limit
        case _:
            return value <= limit


def bind_bool(value: bool) -> ColumnElement[bool]:  # noqa: FBT001 (the value to bind)
    """Bind a truth value."""
    return bindparam(None, value, type_=Boolean(), unique=True)


def write_instant(value: datetime) -> str:
    """Write an aware UTC instant as the value of a parameter."""
    return value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def is_before(value: ColumnElement[Any], limit: datetime, *, inclusive: bool = False) -> ColumnElement[bool]:
    """Return whether an instant is before another or, if `inclusive`, equal to it.

    The expression matches no index on purpose: by an index the server would skip newer versions before FINAL has merged
    them, and days before 1970, which toDate() maps to the far future.
    """
    microseconds = literal(count_microseconds(limit), BigInteger())
    return to_microseconds(value) <= microseconds if inclusive else to_microseconds(value) < microseconds


def is_after(value: ColumnElement[Any], limit: datetime, *, inclusive: bool = False) -> ColumnElement[bool]:
    """Return whether an instant is after another or, if `inclusive`, equal to it; matches no index, as `is_before`."""
    return not_(is_before(value, limit, inclusive=not inclusive))


def may_be_before(day: ColumnElement[Any], limit: datetime) -> ColumnElement[bool]:
    """Return a condition on the day that a table is sorted by, to skip days that are certainly after an instant."""
    if not EPOCH <= limit < FAR_FUTURE:
        return true()
    return or_(day <= _date(limit + LARGEST_ZONE_OFFSET), day >= _date(FAR_FUTURE))


def may_be_after(day: ColumnElement[Any], limit: datetime) -> ColumnElement[bool]:
    """Return a condition on the day that a table is sorted by, to skip days that are certainly before an instant."""
    if not EPOCH + LARGEST_ZONE_OFFSET <= limit < FAR_FUTURE:
        return true()
    return day >= _date(limit - LARGEST_ZONE_OFFSET)


def to_microseconds(value: ColumnElement[Any]) -> ColumnElement[int]:
    """Return an instant as microseconds since 1970, in a form that matches no index; see `is_before`."""
    return func.bitOr(func.toUnixTimestamp64Micro(value), 0, type_=BigInteger())


def count_microseconds(value: datetime) -> int:
    """Count the microseconds from 1970 to an instant."""
    return (value - EPOCH) // timedelta(microseconds=1)


def _date(value: datetime) -> ColumnElement[Any]:
    return bindparam(None, value.date().isoformat(), type_=Date(), unique=True)


def contains(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text contains another, case-sensitive."""
    return func.position(value, bind_text(part)) > 0


def contains_ignoring_case(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    r"""Return whether a text contains another, ignoring case; `%`, `_` and `\` are literal."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return value.ilike(bind_text(f"%{escaped}%"))


def starts_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text starts with another."""
    return func.startsWith(value, bind_text(part))


def ends_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text ends with another."""
    return func.endsWith(value, bind_text(part))


def contains_words(value: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    """Return whether a text contains all words of another, ignoring the case of ASCII letters.

    A word is a run of ASCII letters, digits and characters beyond ASCII.
    """
    return func.hasAll(func.tokens(func.lower(value)), bind_texts(sorted(set(_WORD.findall(_lowered(wanted))))))


def _lowered(value: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in value)


def is_one_of(value: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    """Return whether a text is one of a list of any length."""
    return or_(*(value.in_(part) for part in chunk(values)))


def bind_texts(values: Iterable[str]) -> ColumnElement[Any]:
    """Bind an array of texts of any length, as several parameters where the server's limit requires it."""
    parts = [bindparam(None, part, type_=Array(ChString()), unique=True) for part in chunk(values)]
    return parts[0] if len(parts) == 1 else func.arrayConcat(*parts)


def get_map_value(pairs: ColumnElement[Any], key: str) -> ColumnElement[str | None]:
    """Return the value of a key in a map; null if the key is absent."""
    return case((func.mapContains(pairs, bind_text(key)), func.arrayElement(pairs, bind_text(key), type_=String())))


def to_utc(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return an instant in UTC, whatever the server's time zone."""
    return func.toTimeZone(value, bind_text("UTC"))


def is_json(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether a text is JSON as the parsers of Python and JavaScript read it; null is not."""
    known = func.isValidJSON(value, type_=Boolean())
    refused = and_(
        func.match(value, bind_text(_MAY_BE_REFUSED), type_=Boolean()),
        func.isValidJSON(_without_refused(value), type_=Boolean()),
    )
    # ClickHouse accepts a byte order mark, but JSON readers don't.
    valid = or_(known, refused) & not_(func.startsWith(value, bind_text(BYTE_ORDER_MARK)))
    return cast(func.coalesce(valid, bind_bool(value=False)), Boolean())


def _without_refused(value: ColumnElement[Any]) -> ColumnElement[str]:
    """Replace what ClickHouse refuses in JSON, so that the text is valid for it if the rest of the text is JSON."""
    for pattern, replacement in _REFUSED:
        value = func.replaceRegexpAll(value, bind_text(pattern), bind_text(replacement), type_=String())
    return value


def to_string_object(pairs: ColumnElement[Any]) -> ColumnElement[str]:
    """Write a map of texts as a JSON object of strings."""
    return func.toJSONString(pairs)


def to_json_object(pairs: ColumnElement[Any]) -> ColumnElement[str]:
    """Write a map of texts as a JSON object whose values are JSON where the texts are, else strings."""
    key, value = column("k", String()), column("v", String())
    # A line break in JSON is only ever between tokens; in a JSONL file it would end the line.
    one_line = func.translate(value, bind_text("\r\n"), bind_text("  "))
    written = case((is_json(value), one_line), else_=func.toJSONString(value))
    member = func.concat(func.toJSONString(key), bind_text(":"), written)
    each = Lambda(("k", "v"), member)  # type: ignore[no-untyped-call] # the library has no types
    members = func.arrayMap(each, func.mapKeys(pairs), func.mapValues(pairs))
    return func.concat(bind_text("{"), func.arrayStringConcat(members, bind_text(",")), bind_text("}"))


def chunk(values: Iterable[str]) -> list[list[str]]:
    """Split a list of texts into lists that the server accepts as one value each; one list if there are no texts."""
    chunks: list[list[str]] = [[]]
    size = 0
    for value in values:
        size += len(value.encode()) + 4  # two quotes, a comma and a space
        if size > MAX_BOUND_BYTES and chunks[-1]:
            chunks.append([])
            size = len(value.encode())
        chunks[-1].append(value)
    return chunks
