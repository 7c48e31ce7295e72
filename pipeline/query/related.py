"""Finds what a query needs besides the rows themselves: related tables to join, and rows to send along."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement

from pipeline.query.filters import filtered
from pipeline.query.order import sorted_by
from pipeline.request import ExportQuery
from pipeline.spec import ExportSpec
from pipeline.tables import comments as commented
from pipeline.tables.clickhouse_table import Declaration, Filterable, OfComments, Related, Sent


def related(declaration: Declaration, query: ExportQuery) -> list[Related]:
    """List the related tables that outputs, filters and the order are of, each once.

    Raises Rejected for a column that the table does not have.
    """
    found = {each.name: each for each in _used(declaration, query)}
    return list(found.values())


def sent(declaration: Declaration, query: ExportQuery) -> list[Sent]:
    """List what is to be sent along with the statement; raises Rejected as `related` does."""
    tables = [each.sent for each in related(declaration, query) if each.sent is not None]
    for place, each in enumerate(query.filter or ()):
        column = filtered(declaration, each)
        if isinstance(column, OfComments) and isinstance(each, commented.Asked):
            tables.append(commented.matching(column, each, place))
    return tables


def joined(table: Any, tables: Sequence[Related], spec: ExportSpec) -> Any:
    """Join related tables to a table."""
    for each in tables:
        rows = each.rows(spec.project_id, spec.created_at).subquery(each.name)
        key: ColumnElement[Any] = rows.c[f"{each.name}_key"]
        table = table.outerjoin(rows, key == each.on)
    return table


def _used(declaration: Declaration, query: ExportQuery) -> Iterator[Related]:
    columns = [filtered(declaration, each) for each in query.filter or ()]
    if query.order_by is not None:
        columns.append(sorted_by(declaration, query.order_by))
    outputs = (each.of for each in (*declaration.outputs, *declaration.needed))
    asked = (each.of for each in columns if isinstance(each, Filterable))
    yield from (each for each in (*outputs, *asked) if each is not None)
