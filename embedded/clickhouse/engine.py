"""chDB as a server's engine: each request on a connection of its own, many at once."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from embedded import extra
from embedded.clickhouse import arrow, errors

with extra.needed():
    from chdb.state.sqlitelike import Connection

# Concatenated pieces of these are one document. ArrowStream is joined; what is left is made whole.
CONCATENABLE = frozenset(
    {"Native", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "RowBinary", "JSONEachRow"}
)
SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with)\b", re.IGNORECASE | re.DOTALL)
FORMAT = re.compile(r"\bFORMAT\s+(\w+)(?:\s+SETTINGS\s[^'\"`()]*(?:'[^']*'[^'\"`()]*)*)?[\s;]*\Z", re.IGNORECASE)
KILL = re.compile(r"\s*KILL\s+QUERY\b", re.IGNORECASE)
PROCESSES = re.compile(r"\bsystem\.processes\b", re.IGNORECASE)
QUERY_ID = re.compile(r"\bquery_id\b", re.IGNORECASE)
SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

# chDB gives each query an id that nobody can choose. The client's own travels as this setting instead.
ID_COLUMN = "Settings['log_comment']"
NAMED_PROCESSES = f"(SELECT * REPLACE ({ID_COLUMN} AS query_id) FROM system.processes)"


@dataclass(frozen=True)
class Sent:
    """A table that comes with a statement: `structure` is its columns, `data` its rows in `format`."""

    name: str
    structure: str
    format: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Statement:
    """One statement with all that a client may say about how it runs."""

    sql: str
    query_id: str
    database: str = ""
    default_format: str = "TabSeparated"
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    sent: tuple[Sent, ...] = ()

    @property
    def format(self) -> str:
        """The format of the answer: the statement's own, or the default."""
        found = FORMAT.search(self.sql)
        return found[1] if found else self.default_format


class Engine:
    """All data under one folder; a process can have one engine."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder.resolve())
        # chDB shuts its engine down with the last connection, so one stays open.
        self._anchor = Connection(self._path)
        row = bytes(self._anchor.query("SELECT version(), timezone()", "TabSeparated").bytes())
        self.version, self.timezone = row.decode().strip().split("\t")

    def answer(self, statement: Statement) -> Generator[memoryview | bytes]:
        """Run a statement and give its answer's bytes piece by piece.

        Closing the iterator stops the query. Raises ServerError, also in the middle. A piece is valid until
        the next one is asked for. Memory is bounded for CONCATENABLE formats and ArrowStream; an answer in
        another format is made whole first.
        """
        try:
            with closing(self._connection(statement)) as connection:
                yield from _pieces(connection, statement)
        except errors.ServerError:
            raise
        except Exception as error:  # chDB raises its own class, RuntimeError and others for the same thing
            raise errors.from_engine(error) from error

    def insert(self, statement: Statement, format_name: str, data: Iterator[bytes]) -> tuple[int, int]:
        """Run `INSERT INTO ...` with data in a format of its own; return rows and bytes written.

        Raises ServerError; then, as on a server, blocks that were complete may have been written.
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
            raise errors.from_engine(error) from error
        return int(written.rows_written), int(written.bytes_written)

    def kill(self, query_id: str) -> None:
        """Stop the query with this id, if it runs; do not wait for its end."""
        statement = Statement(f"KILL QUERY WHERE query_id = {_quoted(query_id)} ASYNC", query_id=f"kill {query_id}")
        for _ in self.answer(statement):
            pass

    def close(self) -> None:
        """Close the engine; running queries are the caller's to stop first."""
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
    for table in statement.sent:
        name = f"`{table.name}`"
        connection.query(f"CREATE TEMPORARY TABLE {name} ({table.structure})")
        with connection.send_insert(f"INSERT INTO {name}", table.format) as inserter:
            inserter.append(table.data)
            inserter.finish()


def _pieces(connection: Any, statement: Statement) -> Iterator[memoryview | bytes]:
    sql = _with_client_ids(statement.sql)
    streams = statement.format == "ArrowStream" or statement.format in CONCATENABLE
    if not (streams and SELECT.match(sql)):
        yield from _whole(connection, sql, statement)
        return
    with connection.send_query(sql, statement.format, params=statement.params) as stream:
        pieces = _views(stream)
        first = next(pieces, None)
        if first is not None:
            everything = chain((first,), pieces)
            yield from arrow.joined(everything) if statement.format == "ArrowStream" else everything
            return
    # A stream without rows has no schema either; the same statement made whole has.
    yield from _whole(connection, sql, statement)


def _whole(connection: Any, sql: str, statement: Statement) -> Iterator[memoryview]:
    result = connection.query(sql, statement.format, params=statement.params)
    if result.size():
        yield result.get_memview().view()


def _views(stream: Any) -> Iterator[memoryview]:
    for piece in stream:
        # Not piece.bytes(): that copies, and a piece is several megabytes. The view lives as long as the piece.
        yield piece.get_memview().view()


def _with_client_ids(sql: str) -> str:
    """Let `query_id` mean the clients' ids where a statement kills or lists queries."""
    if KILL.match(sql):
        return QUERY_ID.sub(ID_COLUMN, sql)
    return PROCESSES.sub(NAMED_PROCESSES, sql)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
