"""Adds functions of Postgres to SQLite, so that one statement works on both."""

import json
import sqlite3


def add_functions(connection: sqlite3.Connection) -> None:
    """Add the functions, and the collation of texts, to a connection; a null argument gives null."""
    connection.create_function("strpos", 2, _strpos, deterministic=True)
    connection.create_function("starts_with", 2, _starts_with, deterministic=True)
    connection.create_function("reverse", 1, _reverse, deterministic=True)
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.create_function("jsonb_object_field_text", 2, _field, deterministic=True)
    connection.create_function("pg_column_size", 1, _size, deterministic=True)
    connection.create_collation("C", _compared)


def _strpos(text: str | None, part: str | None) -> int | None:
    return None if text is None or part is None else text.find(part) + 1


def _starts_with(text: str | None, part: str | None) -> bool | None:
    return None if text is None or part is None else text.startswith(part)


def _reverse(text: str | None) -> str | None:
    return None if text is None else text[::-1]


def _lower(value: object) -> str | None:
    return None if value is None else str(value).lower()


def _field(document: str | float | None, key: str) -> str | None:
    """Return the value of a key in an object as text: a string unchanged, a number with all its digits."""
    if not isinstance(document, str):  # SQLite turns documents that look like numbers into numbers
        return None
    value = json.loads(document, parse_int=str, parse_float=str)
    found = value.get(key) if isinstance(value, dict) else None
    if found is None or isinstance(found, str):
        return found
    return json.dumps(json.loads(document)[key], ensure_ascii=False)


def _size(value: object) -> int | None:
    return None if value is None else len(str(value))


def _compared(one: str, other: str) -> int:
    return (one > other) - (one < other)
