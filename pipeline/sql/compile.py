"""Compiles statements for ClickHouse; columns that a table does not have yet become null."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy.dialect import ClickHouseDialect
from clickhouse_connect.cc_sqlalchemy.sql.compiler import ChStatementCompiler
from sqlalchemy import Alias, ColumnElement, Select, TableClause
from sqlalchemy.sql import visitors

Absent: TypeAlias = Mapping[str, frozenset[str]]
"""The columns that tables do not have, by the name of the table."""

_NULLS = {"Map": "CAST(map(), 'Map(String, String)')", "Array": "CAST([], 'Array(String)')"}
"""The types that can't be null, and what is empty instead."""


@dataclass(frozen=True)
class CompiledStatement:
    """A statement for ClickHouse: SQL with `{name:Type}` placeholders, and their values, which the server inserts.

    `absent` are the columns, as `table.column`, that it would read if the tables had them.
    """

    sql: str
    parameters: dict[str, Any]
    absent: frozenset[str] = field(default_factory=frozenset)


class _Compiler(ChStatementCompiler):
    """Writes null for the columns that the dialect calls absent."""

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        name = find_absent(column, self.dialect.absent)  # type: ignore[attr-defined] # our dialect has it
        if name is None:
            return str(super().visit_column(column, *args, **kwargs))  # type: ignore[no-untyped-call] # no types there
        self.dialect.found.add(name)  # type: ignore[attr-defined] # as above
        return _NULLS.get(type(column.type).__name__, "CAST(NULL, 'Nullable(String)')")


class _Dialect(ClickHouseDialect):
    """ClickHouse with tables that lack columns; `found` are those that statements have named."""

    statement_compiler = _Compiler
    supports_statement_cache = False

    def __init__(self, absent: Absent) -> None:
        super().__init__(server_side_params=True)
        self.absent = absent
        self.found: set[str] = set()


def compile_statement(statement: Select[Any], absent: Absent | None = None) -> CompiledStatement:
    """Compile a statement; no value becomes part of the SQL. A column that is absent is null."""
    dialect = _Dialect(absent or {})
    result = statement.compile(dialect=dialect)
    return CompiledStatement(str(result), dict(result.params), frozenset(dialect.found))


def find_absent(column: Any, absent: Absent) -> str | None:
    """Return `table.column` if the column's table does not have it, else None."""
    table = getattr(column, "table", None)
    if isinstance(table, Alias):
        table = table.element
    if isinstance(table, TableClause) and column.name in absent.get(table.name, ()):
        return f"{table.name}.{column.name}"
    return None


def list_absent(value: ColumnElement[Any] | None, absent: Absent) -> set[str]:
    """Return the absent columns that a value is computed from."""
    parts = () if value is None else visitors.iterate(value)
    return {name for part in parts if (name := find_absent(part, absent)) is not None}
