"""Runs statements on chDB, each on its own connection, several at the same time."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from embedded.clickhouse import errors
from embedded.clickhouse.arrow_join import join_streams
from embedded.clickhouse.statement import Statement
from embedded.part import required_packages

with required_packages():
    from chdb.state.sqlitelike import Connection

# Blocks of these formats are concatenated. ArrowStream is joined; other formats are built in memory.
CONCATENABLE = frozenset(
    {"Native", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "RowBinary", "JSONEachRow"}
)
SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with)\b", re.IGNORECASE | re.DOTALL)
KILL = re.compile(r"\s*KILL\s+QUERY\b", re.IGNORECASE)
PROCESSES = re.compile(r"\bsystem\.processes\b", re.IGNORECASE)
QUERY_ID = re.compile(r"\bquery_id\b", re.IGNORECASE)
SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

# chDB generates the ID of each query. The client's ID is passed as this setting instead.
ID_COLUMN = "Settings['log_comment']"
NAMED_PROCESSES = f"(SELECT * REPLACE ({ID_COLUMN} AS query_id) FROM system.processes)"


class Engine:
    """chDB on the data of one folder; a process can have one engine."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder.resolve())
        # chDB shuts down with its last connection, so one stays open.
        self._anchor = Connection(self._path)
        row = bytes(self._anchor.query("SELECT version(), timezone()", "TabSeparated").bytes())
        self.version, self.timezone = row.decode().strip().split("\t")

    def run(self, statement: Statement) -> Generator[memoryview | bytes]:
        """Run a statement and yield the bytes of its response in blocks.

        Closing the iterator stops the query. Raises ServerError, also between blocks. A block is valid until the next
        one is requested. Memory is bounded for CONCATENABLE formats and ArrowStream; a response in another format is
        built in memory first.
        """
        try:
            with closing(self._connection(statement)) as connection:
                yield from _run_blocks(connection, statement)
        except errors.ServerError:
            raise
        except Exception as error:  # chDB raises its own class, RuntimeError and others for the same fault
            raise errors.translate_error(error) from error

    def insert(self, statement: Statement, format_name: str, data: Iterator[bytes]) -> tuple[int, int]:
        """Run `INSERT INTO ...` with data in a format; return the rows and bytes written.

        Raises ServerError; as on a server, complete blocks may have been written by then.
        """
        try:
            with (
                closing(self._connection(statement)) as connection,
                connection.send_insert(statement.sql, format_name) as inserter,
            ):
                for piece in data:
                    inserter.append(piece)
                written = inserter.finish()
        except errors.ServerError:
            raise
        except Exception as error:  # as above
            raise errors.translate_error(error) from error
        return int(written.rows_written), int(written.bytes_written)

    def kill(self, query_id: str) -> None:
        """Stop the query with this ID if it is running; don't wait for its end."""
        statement = Statement(f"KILL QUERY WHERE query_id = {_quoted(query_id)} ASYNC", query_id=f"kill {query_id}")
        for _ in self.run(statement):
            pass

    def close(self) -> None:
        """Close the engine; the caller must stop running queries first."""
        self._anchor.close()

    def _connection(self, statement: Statement) -> Any:
        connection = Connection(self._path)
        try:
            _prepare(connection, statement)
        except BaseException:
            connection.close()
            raise
        return connection


def _prepare(connection: Any, statement: Statement) -> None:
    if statement.database:
        connection.query("USE `" + statement.database.replace("`", "``") + "`")
    for name in statement.settings:
        if not SETTING_NAME.fullmatch(name):
            raise errors.ServerError(
                errors.UNKNOWN_SETTING,
                f"Setting {name} is neither a builtin setting nor started with the prefix. (UNKNOWN_SETTING)",
            )
    settings = {**statement.settings, "log_comment": statement.query_id}
    connection.query("SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items()))
    for table in statement.external_tables:
        name = f"`{table.name}`"
        connection.query(f"CREATE TEMPORARY TABLE {name} ({table.structure})")
        with connection.send_insert(f"INSERT INTO {name}", table.format) as inserter:
            inserter.append(table.data)
            inserter.finish()


def _run_blocks(connection: Any, statement: Statement) -> Iterator[memoryview | bytes]:
    sql = _use_client_ids(statement.sql)
    streams = statement.format == "ArrowStream" or statement.format in CONCATENABLE
    if not (streams and SELECT.match(sql)):
        yield from _run_whole(connection, sql, statement)
        return
    with connection.send_query(sql, statement.format, params=statement.params) as stream:
        blocks = _read_views(stream)
        first = next(blocks, None)
        if first is not None:
            rest = chain((first,), blocks)
            yield from join_streams(rest) if statement.format == "ArrowStream" else rest
            return
    # A stream without rows has no schema either; a response built in memory has one.
    yield from _run_whole(connection, sql, statement)


def _run_whole(connection: Any, sql: str, statement: Statement) -> Iterator[memoryview]:
    result = connection.query(sql, statement.format, params=statement.params)
    if result.size():
        yield result.get_memview().view()


def _read_views(stream: Any) -> Iterator[memoryview]:
    for block in stream:
        # block.bytes() would copy several megabytes. The view is valid as long as the block.
        yield block.get_memview().view()


def _use_client_ids(sql: str) -> str:
    """Make `query_id` the client's ID in statements that kill or list queries."""
    if KILL.match(sql):
        return QUERY_ID.sub(ID_COLUMN, sql)
    return PROCESSES.sub(NAMED_PROCESSES, sql)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
