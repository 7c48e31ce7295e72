"""Compares the files that the product makes of random rows with those that the oracle expects."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock
from zlib import crc32

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client

from pipeline.encode import ENCODERS
from pipeline.progress import Progress
from pipeline.query import statements
from pipeline.read import clickhouse as server
from pipeline.read import connect, open_table
from pipeline.read.clickhouse_settings import OPTIONAL
from pipeline.spec import read_spec
from pipeline.sql.compile import compile_statement
from pipeline.sql.statements import Statement
from tests.oracle import load, raw
from tests.oracle.cells import neutral
from tests.oracle.compare import differences
from tests.oracle.expected import expected, table_of
from tests.oracle.files import read
from tests.oracle.pools import CUTOFF
from tests.oracle.values import Table
from tests.services.stacks import Stack
from tests.support.databases import Databases, open_databases


@dataclass(frozen=True)
class Filled:
    """Databases with rows in them, and the same rows as the oracle reads them."""

    databases: Databases
    rows: raw.World

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 (Hypothesis calls it so)
        """Print the number of rows: a failure that prints all of them is reported as a flaky strategy instead."""
        printer.text(f"Filled({sum(map(len, self.rows.tables.values()))} rows)")

    @cached_property
    def _tables(self) -> dict[tuple[str, str, bool], Table]:
        return {}

    def table(self, project: str, name: str, *, events: bool = False) -> Table:
        """All rows of a table, as the oracle expects them."""
        key = (project, name, events)
        if key not in self._tables:
            self._tables[key] = table_of(self.rows, project, name, CUTOFF, use_events_table=events)
        return self._tables[key]

    def problems(self, project: str, query: Mapping[str, Any], form: str) -> list[str]:
        """The differences between the file that the product makes of a stored query and the expected one, in words."""
        table = self.table(project, query["tableName"], events=query.get("useEventsTable", False))
        return differences(expected(table, query), self.file(project, query, form), form)

    def projection_problems(
        self, project: str, query: Mapping[str, Any], named: Mapping[str, Any], form: str
    ) -> list[str]:
        """How the file of `named`, the query with columns, differs from those columns in the file without, in words."""
        columns = expected(self.table(project, query["tableName"], events=query["useEventsTable"]), named).columns
        if form == "CSV":
            columns = tuple(neutral(name) for name in columns)
        whole, part = (read(self.file(project, each, form), form) for each in (query, named))
        if part.columns is not None and part.columns != columns:
            return [f"columns: expected {columns}, found {part.columns}"]
        # A line with nothing in it is skipped by readers, so null in the only column is an empty text.
        null = "" if form == "CSV" and len(columns) == 1 else None
        wanted = [repr({name: null if row[name] is None else row[name] for name in columns}) for row in whole.rows]
        found = [repr(dict(row)) for row in part.rows]
        if len(wanted) != len(found):
            return [f"expected {len(wanted)} rows, found {len(found)}"]
        return [f"expected {one}, found {other}" for one, other in zip(wanted, found, strict=True) if one != other]

    def file(self, project: str, query: Mapping[str, Any], form: str) -> bytes:
        """The file that the product makes of a stored query."""
        spec = read_spec(
            project_id=project, export_id="e", attempt=1, created_at=CUTOFF, query=dict(query), format=form
        )
        # Half of all queries are answered as those of a project with many rows.
        few_rows = statements.FEW_ROWS if crc32(repr((project, query)).encode()) % 2 else 0
        with (
            mock.patch.object(statements, "FEW_ROWS", few_rows),
            open_table(spec, self.databases.sources, Progress()) as table,
        ):
            pieces = ENCODERS[form](table.columns, table.enrich(table.batches), spec.encoding)
            return b"".join(bytes(piece) for piece in pieces)


@contextmanager
def cached_lookups() -> Iterator[None]:
    """Cache the server's settings, the surveys and the names of scores: all cases of the same rows share them.

    The statement that reads the rows is sent for every case.
    """
    clients: dict[str, Client] = {}
    answers: dict[str, list[dict[str, Any]]] = {}

    def client(**how: Any) -> Client:
        key = repr(sorted(how.items()))
        if key not in clients:
            clients[key] = get_client(**how)
        return clients[key]

    asked = server.ClickHouseConnection.rows

    def rows(self: server.ClickHouseConnection, statement: Statement) -> list[dict[str, Any]]:
        key = repr(compile_statement(statement.make()))
        if key not in answers:
            answers[key] = asked(self, statement)
        return answers[key]

    with (
        mock.patch.object(connect, "get_client", client),
        mock.patch.object(server.ClickHouseConnection, "rows", rows),
        mock.patch.object(server.ClickHouseConnection, "close"),
        mock.patch.dict(OPTIONAL, max_threads=1),
    ):
        yield
    for each in clients.values():
        each.close()


@contextmanager
def fill_databases(stack: Stack, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Filled]:
    """Fill the databases of a stack with rows by table."""
    environment = stack.databases()
    address, database = environment["CLICKHOUSE_URL"], environment["CLICKHOUSE_DB"]
    with open_databases(environment) as databases:
        load.fill(address, database, databases.engine, rows)
        yield Filled(databases, raw.load(address, database, databases.engine))
