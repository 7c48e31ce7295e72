"""Extreme values of every column of the tables that Waybill reads, as SQL literals, for Postgres and for SQLite."""

import json
from typing import Any

from sqlalchemy import Column, Engine, Table
from sqlalchemy.exc import DBAPIError

NESTED = (90, 1_000, 5_000)

_JSON = [
    "null",
    "1",
    '"text"',
    "[]",
    "{}",
    '{"tableName": 5}',
    '{"tableName": "traces", "filter": 1e400}',
    '{"tableName": "traces", "filter": [], "orderBy": null, "extra": ' + "9" * 5_000 + "}",
    json.dumps({"tableName": "x" * 2_000_000}),
    *('{"tableName": "traces", "filter": ' + "[" * depth + "]" * depth + "}" for depth in NESTED),
    *('{"tableName": "traces", "filter": [], "x": ' + '{"a":' * depth + "1" + "}" * depth + "}" for depth in NESTED),
]
_TEXTS = ["", " ", "\x01\x1b[31m", "é\U0001f600\u202e", "x" * 512, "x" * 513, "x" * 2_000_000]

_POSTGRES: dict[str, list[Any]] = {
    "INSTANT": [
        "infinity",
        "-infinity",
        "4713-01-01 00:00:00 BC",
        "0001-01-01 00:00:00",
        "1969-12-31 23:59:59",
        "2300-01-01 00:00:00",
        "9999-12-31 23:59:59.999",
        "10000-01-01 00:00:00",
        "294276-12-31 23:59:59.999",
    ],
    "TEXT": _TEXTS,
    "JSON": _JSON,
    "INTEGER": [-(2**31), -1, 0, 2**31 - 1],
    "BIGINT": [-(2**63), -1, 2**63 - 1],
    "BOOLEAN": ["true", "false"],
}

_SQLITE: dict[str, list[Any]] = {
    "INSTANT": [
        "not a date",
        "",
        "infinity",
        "0000-00-00 00:00:00.000000",
        "0001-01-01 00:00:00.000000",
        "9999-12-31 23:59:59.999999",
        "99999-01-01 00:00:00.000000",
        b"\xff\xfe",
        1_700_000_000_000,
        1e300,
    ],
    "TEXT": [*_TEXTS, b"\xff\xfe\xc3\x28", "a\0b", 5],
    "JSON": [*_JSON, "", "not JSON", "NaN", '{"tableName": "\\ud800"}', b"\xff\xfe", b"{}", 7],
    "INTEGER": [-(2**63), -1, 0, 2**31 - 1, 2**63 - 1, "abc", 1e300, b"\xff"],
    "BIGINT": [-(2**63), -1, 2**63 - 1, "abc", 1e300, b"\xff"],
    "BOOLEAN": [0, 1, 5, "abc", b"\xff"],
}

KINDS = {"Instant": "INSTANT", "Text": "TEXT", "JSON": "JSON", "Integer": "INTEGER", "BigInteger": "BIGINT"}
KINDS |= {"Boolean": "BOOLEAN"}


def extremes(engine: Engine, table: Table, column: Column[object]) -> list[object]:
    """Return what a column can hold, to be bound by the driver; None where the column is nullable."""
    values = _POSTGRES if engine.dialect.name == "postgresql" else _SQLITE
    listed: list[object] = list(values[KINDS[type(column.type).__name__]])
    if column.primary_key and table.name == "waybill_outbox":
        listed = [value for value in listed if isinstance(value, int) and value != 0]
    return [*listed, None] if column.nullable else listed


def write(engine: Engine, column: Column[object], value: object, **where: object) -> bool:
    """Write a value into a column of the rows that match, below SQLAlchemy's types; False if the database refuses."""
    postgres = engine.dialect.name == "postgresql"
    mark = "%s" if postgres else "?"
    cast = f"::{_CASTS[KINDS[type(column.type).__name__]]}" if postgres else ""
    matches = " AND ".join(f"{name} = {mark}" for name in where)
    sql = f"UPDATE {column.table.name} SET {column.name} = {mark}{cast} WHERE {matches}"
    bound = value if value is None or not postgres else str(value)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(sql, (bound, *where.values()))
    except DBAPIError:  # too large for an index, or not for this type
        return False
    return True


_CASTS = {
    "INSTANT": "timestamp",
    "TEXT": "text",
    "JSON": "jsonb",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
}
