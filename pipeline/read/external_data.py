"""Reads rows of Langfuse's Postgres that are sent to ClickHouse with a statement, as external data."""

from collections.abc import Iterator, Sequence
from typing import Any

from clickhouse_connect.driver.external import ExternalData
from sqlalchemy import Connection, Engine

from pipeline.interrupt import connect
from pipeline.read import sqlite
from pipeline.tables.columns import ExternalTable

ROWS_PER_FETCH = 10_000
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def read_external_data(tables: Sequence[ExternalTable], project_id: str, database: Engine) -> ExternalData | None:
    """Read the rows of all tables into what the client sends; None if there are no tables.

    All rows are in memory together, at some 50 bytes each. Raises Unavailable when the database fails.
    """
    data = ExternalData()
    with connect(database) as connection:
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            sqlite.add_functions(driver)
        for each in tables:
            rows = b"".join(_read_lines(each, project_id, connection))
            data.add_file(file_name=each.name, data=rows, fmt="TabSeparated", structure=each.structure)
    return data if tables else None


def _read_lines(table: ExternalTable, project_id: str, connection: Connection) -> Iterator[bytes]:
    statement = table.statement(project_id, connection.engine)
    result = connection.execution_options(yield_per=ROWS_PER_FETCH).execute(statement)
    for rows in result.partitions():
        yield "".join("\t".join(map(_to_cell, row)) + "\n" for row in rows).encode()


def _to_cell(value: object) -> str:
    return value.translate(ESCAPES) if isinstance(value, str) else str(int(value))  # type: ignore[call-overload] # an integer or a truth value
