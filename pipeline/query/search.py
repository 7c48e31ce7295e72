"""Compiles a search: the text anywhere in one of the columns that the search types name, ignoring case."""

import json
from collections.abc import Callable
from typing import TypeAlias

from sqlalchemy import ColumnElement, or_, true

from config.errors import Rejected
from pipeline.request import ExportQuery
from pipeline.tables.columns import AnyFilterable, Filterables

Contains: TypeAlias = Callable[[ColumnElement[str], str], ColumnElement[bool]]


def search_condition(table: Filterables[AnyFilterable], query: ExportQuery, contains: Contains) -> ColumnElement[bool]:
    """Return the condition that a row meets when the search finds it; without a search, every row does.

    `contains` compiles, for the table's database, whether a text contains another, ignoring case. Raises Rejected for a
    search that the table doesn't support.
    """
    if not query.search_query:
        return true()
    if not table.searched:
        raise Rejected(f"{table.name} can't be searched; leave the search out, or filter.")
    conditions: list[ColumnElement[bool]] = []
    for each in query.search_type or ("id",):
        if each not in table.searched:
            raise Rejected(f"{table.name} can't be searched by {each!r}; it can by {', '.join(table.searched)}.")
        spellings = {query.search_query} if each == "id" else {query.search_query, _escape(query.search_query)}
        conditions += [contains(column, part) for column in table.searched[each] for part in sorted(spellings)]
    return or_(*conditions)


def _escape(text: str) -> str:
    r"""Write characters beyond ASCII as JSON texts may have them: `\uXXXX`."""
    return "".join(character if character.isascii() else json.dumps(character)[1:-1] for character in text)
