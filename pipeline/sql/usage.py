"""Computes what observations and events are filtered by and shown with: durations, and sums of usage and of cost."""

from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import UInt8
from clickhouse_connect.cc_sqlalchemy.sql.clauses import Lambda
from sqlalchemy import ColumnElement, Integer, Numeric, String, case, column, func, literal, null

from pipeline.sql.clickhouse import bind_text

MILLISECONDS_DIGITS = 3
COST_DIGITS = 12


def milliseconds_between(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """Give the whole milliseconds from one instant to another, cut towards zero; null without an end."""
    passed = func.toUnixTimestamp64Micro(end) - func.toUnixTimestamp64Micro(start)
    return func.intDiv(passed, literal(1000, Integer()), type_=Integer())


def seconds_between(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give the seconds from one instant to another, a decimal exact to the millisecond; null without an end."""
    passed = func.toDecimal64(milliseconds_between(start, end), literal(MILLISECONDS_DIGITS, UInt8()), type_=Numeric())
    return passed / literal(1000, Integer())


def per_second(amount: ColumnElement[Any], start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[float]:
    """Give an amount by the seconds that passed; null without an end, and where no time passed."""
    passed = func.nullIf(milliseconds_between(start, end), 0, type_=Integer())
    return func.divide(amount, func.divide(passed, 1000))


def sum_containing(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    """Add up the values of a map whose key contains a word in any case; 0 where none does."""
    return func.arraySum(func.mapValues(_keyed(amounts, word)))


def sum_containing_or_null(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    """Add up the values of a map whose key contains a word in any case; null where none does."""
    return case((func.length(_keyed(amounts, word)) > 0, sum_containing(amounts, word)), else_=null())


def get_total(amounts: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give a map's own total; 0 without one."""
    return func.arrayElement(amounts, bind_text("total"))


def get_total_or_null(amounts: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give a map's own total; null without one."""
    return case((func.mapContains(amounts, bind_text("total")), get_total(amounts)), else_=null())


def to_cost(amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give a cost the one type that all costs are shown in."""
    return func.toDecimal128(amount, literal(COST_DIGITS, UInt8()))


def _keyed(amounts: ColumnElement[Any], word: str) -> ColumnElement[Any]:
    key = column("k", String())
    fits = func.positionCaseInsensitive(key, bind_text(word)) > 0
    return func.mapFilter(Lambda(("k", "v"), fits), amounts)  # type: ignore[no-untyped-call] # untyped there
