"""Reads rows of the application's database that are sent to ClickHouse with a statement."""

from collections.abc import Iterator, Sequence

from clickhouse_connect.driver.external import ExternalData
from sqlalchemy import Connection, Engine

from pipeline.database import connected
from pipeline.tables.clickhouse_table import Sent

ROWS_AT_ONCE = 10_000
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def gathered(tables: Sequence[Sent], project_id: str, database: Engine) -> ExternalData | None:
    """Read the rows of all tables, as the client sends them; None where there is nothing to send.

    They are in memory at once, some 50 bytes a row. Raises Unavailable when the database fails.
    """
    data = ExternalData()
    with connected(database) as connection:
        for each in tables:
            rows = b"".join(_lines(each, project_id, connection))
            data.add_file(file_name=each.name, data=rows, fmt="TabSeparated", structure=each.structure)
    return data if tables else None


def _lines(table: Sent, project_id: str, connection: Connection) -> Iterator[bytes]:
    statement = table.statement(project_id, connection.engine)
    found = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(statement)
    for rows in found.partitions():
        yield "".join("\t".join(map(_cell, row)) + "\n" for row in rows).encode()


def _cell(value: object) -> str:
    return value.translate(ESCAPES) if isinstance(value, str) else str(int(value))  # type: ignore[call-overload] # an integer or a truth value
