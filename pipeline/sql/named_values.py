"""Binds the values that differ between exports of the same query, by name: all of them can use one compiled text."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import Array, UInt16
from clickhouse_connect.cc_sqlalchemy.datatypes.sqltypes import String as ChString
from sqlalchemy import BigInteger, ColumnElement, String, bindparam, func, literal

from pipeline.sql.clickhouse import INSTANT, chunk, count_microseconds, to_microseconds, write_instant

PROJECT = "project"
CUTOFF = "cutoff"
CUTOFF_MICROSECONDS = "cutoff_microseconds"
SCORE_NAMES = "score_names_"
END_OF_SCORES = "end_of_scores"

MOST_SCORES = 65_534
"""One less than the largest UInt16, which is the type of the end of their places."""


def bind_project(project_id: str) -> ColumnElement[str]:
    """Bind the project's ID."""
    return bindparam(PROJECT, project_id, type_=String())


def bind_cutoff(cutoff: datetime) -> ColumnElement[datetime]:
    """Bind the cutoff, an aware UTC instant, to the microsecond."""
    return bindparam(CUTOFF, write_instant(cutoff), type_=INSTANT)


def is_before_cutoff(value: ColumnElement[Any], cutoff: datetime) -> ColumnElement[bool]:
    """Return whether an instant is before the cutoff; matches no index, as `pipeline.sql.clickhouse.is_before`."""
    return to_microseconds(value) < bindparam(CUTOFF_MICROSECONDS, count_microseconds(cutoff), type_=BigInteger())


def find_score_position(value: ColumnElement[str], names: Sequence[str]) -> ColumnElement[int]:
    """Return the place of a text in the names of scores, from 1; 0 if it is not there."""
    parts = [
        bindparam(f"{SCORE_NAMES}{place}", part, type_=Array(ChString())) for place, part in enumerate(chunk(names))
    ]
    listed = parts[0] if len(parts) == 1 else func.arrayConcat(*parts)
    places = func.range(literal(1, UInt16()), bindparam(END_OF_SCORES, len(names) + 1, type_=UInt16()))
    return func.transform(value, listed, places, literal(0, UInt16()))


def list_named_values(project_id: str, cutoff: datetime, names: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return what the functions above bind, by name; long `names` are several values."""
    return {
        PROJECT: project_id,
        CUTOFF: write_instant(cutoff),
        CUTOFF_MICROSECONDS: count_microseconds(cutoff),
        END_OF_SCORES: len(names) + 1,
        **{f"{SCORE_NAMES}{place}": part for place, part in enumerate(chunk(names))},
    }
