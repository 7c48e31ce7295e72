"""Computes durations, and sums of usage and cost, of observations and events."""

from collections.abc import Callable
from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import UInt8
from clickhouse_connect.cc_sqlalchemy.sql.clauses import Lambda
from sqlalchemy import BigInteger, ColumnElement, Integer, Numeric, String, case, column, func, literal, null

from pipeline.sql.clickhouse import bind_text

MILLISECONDS_DIGITS = 3
COST_DIGITS = 12


def milliseconds_between(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the milliseconds from one instant to another, truncated towards zero; null without an end."""
    passed = func.toUnixTimestamp64Micro(end) - func.toUnixTimestamp64Micro(start)
    return func.intDiv(passed, literal(1000, Integer()), type_=Integer())


def seconds_crossed(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """Return how many times the second changes between two instants, as Langfuse measures sessions."""
    return func.dateDiff(bind_text("second"), start, end, type_=BigInteger())


def seconds_between(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the seconds from one instant to another, a decimal exact to the millisecond; null without an end."""
    passed = func.toDecimal64(milliseconds_between(start, end), literal(MILLISECONDS_DIGITS, UInt8()), type_=Numeric())
    return passed / literal(1000, Integer())


def per_second(amount: ColumnElement[Any], start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[float]:
    """Return an amount per second; null without an end. If no time passed, it is infinite, or NaN for no amount."""
    return func.divide(amount, func.divide(milliseconds_between(start, end), 1000))


def sum_containing(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    """Sum the values of a map whose keys contain a word, case-sensitive; 0 if none does."""
    return func.arraySum(func.mapValues(_keyed(amounts, word, func.position)))


def sum_containing_or_null(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    """Sum the values of a map whose keys contain a word, case-sensitive; null if none does."""
    keyed = _keyed(amounts, word, func.position)
    return case((func.length(keyed) > 0, sum_containing(amounts, word)), else_=null())


def sum_containing_ignoring_case(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    """Sum the values of a map whose keys contain a word, ignoring case; 0 if none does."""
    return func.arraySum(func.mapValues(_keyed(amounts, word, func.positionCaseInsensitive)))


def get_total(amounts: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the value of the key `total`; 0 without one."""
    return func.arrayElement(amounts, bind_text("total"))


def get_total_or_null(amounts: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the value of the key `total`; null without one."""
    return case((func.mapContains(amounts, bind_text("total")), get_total(amounts)), else_=null())


def to_cost(amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """Convert a cost to the type that all costs are exported in."""
    return func.toDecimal128(amount, literal(COST_DIGITS, UInt8()))


def _keyed(amounts: ColumnElement[Any], word: str, position: Callable[..., ColumnElement[Any]]) -> ColumnElement[Any]:
    key = column("k", String())
    fits = position(key, bind_text(word)) > 0
    return func.mapFilter(Lambda(("k", "v"), fits), amounts)  # type: ignore[no-untyped-call] # the library has no types
