"""Says in Postgres's words what filters, searches and sorts ask; SQLite is taught the functions where it is read."""

from typing import Any, Literal

from sqlalchemy import ColumnElement, Text, collate, false, func, literal
from sqlalchemy.sql.elements import UnaryExpression

from pipeline.database import NUL

Direction = Literal["ASC", "DESC"]


def contains(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Ask whether a text holds another, case-sensitive."""
    return false() if NUL in part else func.strpos(value, bind_text(part)) > 0


def contains_ignoring_case(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Ask whether a text holds another in any case."""
    return false() if NUL in part else func.strpos(func.lower(value), func.lower(bind_text(part))) > 0


def starts_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Ask whether a text starts with another."""
    return false() if NUL in part else func.starts_with(value, bind_text(part))


def ends_with(value: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Ask whether a text ends with another."""
    return false() if NUL in part else func.starts_with(func.reverse(value), bind_text(part[::-1]))


def equals(value: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    """Ask whether a text is another."""
    return false() if NUL in wanted else value == bind_text(wanted)


def negate(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Ask for the exact opposite, which what is missing meets."""
    return ~func.coalesce(condition, false())


def get_member(document: ColumnElement[Any], key: str) -> ColumnElement[str | None]:
    """Give the value under a key of a JSON object as text; null where there is none, or JSON's null."""
    return func.jsonb_object_field_text(document, bind_text(key.replace(NUL, "")), type_=Text())


def bind_text(value: str) -> ColumnElement[str]:
    """Bind a text."""
    return literal(value, Text())


def to_sort_key(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give what a value is sorted by: texts by their code points, whatever the database's language."""
    return collate(value, "C") if isinstance(value.type, Text) else value


def sort_by(key: ColumnElement[Any], direction: Direction) -> UnaryExpression[Any]:
    """Sort by a key; rows without a value come last."""
    return (key.asc() if direction == "ASC" else key.desc()).nulls_last()
