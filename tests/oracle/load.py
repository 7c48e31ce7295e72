"""Puts raw rows into the databases that the product reads: one INSERT a table, all versions kept apart."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from tests.oracle.raw import CLICKHOUSE_TABLES, SQL_TABLES, ask

# Else the server would merge versions of one key on the way in, and nobody would see whether the reader can.
KEEP_VERSIONS = {"optimize_on_insert": "0", "session_timezone": "UTC"}


def fill(clickhouse_url: str, database: str, engine: Engine, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Insert rows by table into tables that exist; those of `events_core` follow `events_full` by themselves."""
    for table in CLICKHOUSE_TABLES:
        if rows.get(table):
            _into_clickhouse(clickhouse_url, database, table, rows[table])
    with engine.begin() as connection:
        for table in SQL_TABLES:
            if rows.get(table):
                names = list(rows[table][0])
                columns = ", ".join(f'"{name}"' for name in names)
                values = ", ".join(f":{name}" for name in names)
                connection.execute(
                    text(f'INSERT INTO "{table}" ({columns}) VALUES ({values})'),
                    [{name: _sql_value(row[name]) for name in names} for row in rows[table]],
                )


def empty(clickhouse_url: str, database: str, engine: Engine) -> None:
    """Remove all rows that `fill` may have inserted."""
    for table in (*CLICKHOUSE_TABLES, "events_core"):
        ask(clickhouse_url, {"database": database}, f"TRUNCATE TABLE {table}".encode())
    with engine.begin() as connection:
        for table in SQL_TABLES:
            connection.execute(text(f'DELETE FROM "{table}"'))


def _into_clickhouse(url: str, database: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False, default=_clickhouse_value) for row in map(_finite, rows))
    statement = f"INSERT INTO {table} FORMAT JSONEachRow"
    # A lone surrogate stands for a byte that is not UTF-8.
    ask(url, {"database": database, "query": statement, **KEEP_VERSIONS}, lines.encode(errors="surrogateescape"))


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN; the server reads it from a string."""
    return {name: str(value) if isinstance(value, float) else value for name, value in row.items()}


def _clickhouse_value(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    assert isinstance(value, Decimal), value
    return str(value)


def _sql_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value.value, ensure_ascii=False) if isinstance(value, Document) else value


class Document:
    """A value for a JSON column."""

    def __init__(self, value: Any) -> None:
        self.value = value
