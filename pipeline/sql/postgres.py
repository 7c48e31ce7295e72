"""Compiles conditions and sort keys for Postgres; read/sqlite.py gives SQLite the functions that it lacks."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Engine,
    LargeBinary,
    Text,
    any_,
    bindparam,
    cast,
    collate,
    false,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import UnaryExpression

from pipeline.request import Direction

# Postgres accepts it in no text, so no row contains it.
NUL = "\x00"


def contains(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text contains another, case-sensitive."""
    return false() if NUL in part else func.strpos(value, bind_text(part)) > 0


def contains_ignoring_case(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text contains another, ignoring case."""
    return false() if NUL in part else func.strpos(func.lower(value), func.lower(bind_text(part))) > 0


def starts_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text starts with another."""
    return false() if NUL in part else func.starts_with(value, bind_text(part))


def ends_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return whether a text ends with another."""
    return false() if NUL in part else func.starts_with(func.reverse(value), bind_text(part[::-1]))


def equals(value: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    """Return whether a text is another."""
    return false() if NUL in wanted else value == bind_text(wanted)


def is_one_of(value: ColumnElement[str], values: Iterable[str], database: Engine) -> ColumnElement[bool]:
    """Return whether a text is one of a list of any length, bound as one parameter."""
    wanted = [each for each in values if NUL not in each]
    if database.dialect.name == "postgresql":
        return value == any_(bindparam(None, wanted, type_=ARRAY(Text), unique=True))
    listed = func.json_each(json.dumps(wanted)).table_valued("value")
    return value.in_(select(listed.c.value))


def count_bytes(value: ColumnElement[str], database: Engine) -> ColumnElement[int]:
    """Return the bytes of a text. Postgres knows them without reading a long text, and has to read it for `length`."""
    if database.dialect.name == "postgresql":
        return func.octet_length(value)
    return func.length(cast(value, LargeBinary))


def negate(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the exact opposite of a condition; a missing value meets it."""
    return ~func.coalesce(condition, false())


def get_member(document: ColumnElement[Any], key: str) -> ColumnElement[str | None]:
    """Return the value of a key in a JSON object as text; null if the key is absent or its value is JSON's null."""
    return func.jsonb_object_field_text(document, bind_text(key.replace(NUL, "")), type_=Text())


def bind_text(value: str) -> ColumnElement[str]:
    """Bind a text."""
    return literal(value, Text())


def to_sort_key(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the sort key of a value: texts are sorted by code point, whatever the database's locale."""
    return collate(value, "C") if isinstance(value.type, Text) else value


def sort_by(key: ColumnElement[Any], direction: Direction) -> UnaryExpression[Any]:
    """Sort by a key; nulls come last."""
    return (key.asc() if direction == "ASC" else key.desc()).nulls_last()
