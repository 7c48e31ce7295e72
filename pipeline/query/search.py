"""Compiles a search: the text anywhere in any of the columns that the search types name, in any case."""

import json
from collections.abc import Callable

from sqlalchemy import ColumnElement, or_, true

from config.errors import Rejected
from pipeline.request import ExportQuery
from pipeline.sql.clickhouse import contains_ignoring_case
from pipeline.tables.clickhouse_table import Askable, Listed

Held = Callable[[ColumnElement[str], str], ColumnElement[bool]]


def matches(table: Listed[Askable], query: ExportQuery, held: Held = contains_ignoring_case) -> ColumnElement[bool]:
    """Give the condition that a row meets when the search finds it; without a search, every row does.

    `held` asks, in the words of the table's database, whether a text holds another in any case. Raises Rejected for
    a search that the table can't honour.
    """
    if not query.search_query:
        return true()
    if not table.searched:
        raise Rejected(f"{table.name} can't be searched; leave the search out, or filter.")
    found: list[ColumnElement[bool]] = []
    for each in query.search_type or ("id",):
        if each not in table.searched:
            raise Rejected(f"{table.name} can't be searched by {each!r}; it can by {', '.join(table.searched)}.")
        spellings = {query.search_query} if each == "id" else {query.search_query, _escaped(query.search_query)}
        found += [held(column, part) for column in table.searched[each] for part in sorted(spellings)]
    return or_(*found)


def _escaped(text: str) -> str:
    r"""Spell the characters beyond ASCII as JSON texts may: `\uXXXX`."""
    return "".join(character if character.isascii() else json.dumps(character)[1:-1] for character in text)
