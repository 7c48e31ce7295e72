"""Narrows a table to the columns that a stored query names, so that no others are read, and puts them in its order."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement
from sqlalchemy.sql import visitors

from config.errors import Rejected
from pipeline.enrich.comments import COMMENTS
from pipeline.enrich.scores import ScoreColumn
from pipeline.request import ALL_SCORES, SCORE_PREFIX, ExportQuery
from pipeline.sql.named_values import MOST_SCORES
from pipeline.tables import TableDeclaration
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.columns import ID
from pipeline.tables.database_table import DatabaseTable
from pipeline.types import Column, Format, Kind

MOST_LISTED = 20
"""How many scores of a project an error lists at most."""


def check_columns(table: TableDeclaration, query: ExportQuery) -> None:
    """Raise Rejected, with the columns that exist, if the query names another one; the names of scores may exist."""
    known = [column.name for column in table.columns]
    has_scores = isinstance(table, ClickHouseTable) and bool(table.scores)
    for name in query.columns or ():
        if name not in known and not (has_scores and _is_of_scores(name)):
            scores = f"; {SCORE_PREFIX}NAME for a score, and {ALL_SCORES} for all" if has_scores else ""
            raise Rejected(f"{table.name} has no column {name[:80]!r}. Its columns are: {', '.join(known)}{scores}.")


def choose_columns(table: ClickHouseTable, query: ExportQuery) -> ClickHouseTable:
    """Return the table with the columns that the query names, and what they are made of; raises as `check_columns`."""
    check_columns(table, query)
    if query.columns is None:
        return table
    outputs = tuple(output for output in table.outputs if output.name in query.columns)
    needed = {ID, *(output.made_of for output in outputs)}
    others = (output for output in (*table.outputs, *table.enricher_inputs) if output not in outputs)
    inputs = tuple(output for output in others if output.name in needed)
    read = _list_columns(output.value for output in (*outputs, *inputs))
    names = query.scores
    return replace(
        table,
        outputs=outputs,
        enricher_inputs=inputs,
        search_joins=tuple(each.join for each in table.outputs if each.join is not None and query.search_query),
        wide=tuple(value for value in table.wide if read & _list_columns([value])),
        enrichers=table.enrichers if any(output.value is None for output in outputs) else (),
        comments_on=table.comments_on if COMMENTS in query.columns else None,
        scores=table.scores if names is None else tuple(replace(each, names=names) for each in table.scores if names),
        fallback=None if table.fallback is None else choose_columns(table.fallback, query),
    )


def choose_outputs(table: DatabaseTable, query: ExportQuery) -> DatabaseTable:
    """Return the table with the columns that the query names, and the row's ID; raises as `check_columns`."""
    check_columns(table, query)
    if query.columns is None:
        return table
    outputs = tuple(output for output in table.outputs if output.name in (*query.columns, ID))
    read = _list_columns(output.value for output in outputs)
    return replace(table, outputs=outputs, wide=tuple(each for each in table.wide if read & _list_columns([each])))


def choose_scores(columns: Sequence[ScoreColumn], query: ExportQuery, format_: Format) -> list[ScoreColumn]:
    """Return the columns of scores in the file, in their order, given those of all scores of the project.

    Raises Rejected, with the scores that exist, if the query names another one; also if there are too many, or if it
    leaves no column.
    """
    chosen, names = list(columns), query.scores
    if names is not None:
        known = {each.score: each for each in columns}
        if unknown := [name for name in names if name not in known]:
            raise Rejected(
                f"The project has no score {unknown[0][:80]!r}. Its scores: {_list_names(list(known)) or 'none'}."
            )
        chosen = [known[name] for name in names]
    elif query.columns == (ALL_SCORES,) and not chosen:
        raise Rejected("The query asks for the scores alone, and the project has none. Name at least one more column.")
    if len(chosen) > MOST_SCORES:
        raise Rejected(
            f"The project has {len(chosen):,} names of scores, and a file has columns for {MOST_SCORES:,} at most. "
            f"Name the columns that you need, with {SCORE_PREFIX}NAME for each score."
        )
    if format_.typed:
        return chosen
    kind = Kind.SPARSE if _come_last(query.columns) else Kind.JSON
    return [replace(each, column=Column(each.column.name, kind)) for each in chosen]


def arrange_columns(columns: Sequence[Column], scores: Sequence[ScoreColumn], query: ExportQuery) -> list[Column]:
    """Return the columns of the file: those that the query names, or all; `columns` are the table's."""
    if query.columns is None:
        return [*columns, *(each.column for each in scores)]
    places = {column.name: [column] for column in columns}
    places |= {f"{SCORE_PREFIX}{each.score}": [each.column] for each in scores}
    places[ALL_SCORES] = [each.column for each in scores]
    return [column for name in query.columns for column in places[name]]


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return ", ".join(name[:80] for name in names[:MOST_LISTED]) + more


def _is_of_scores(name: str) -> bool:
    return name == ALL_SCORES or name.startswith(SCORE_PREFIX)


def _come_last(names: Sequence[str] | None) -> bool:
    """Return whether the scores come after at least one other column, and no other follows them."""
    after = dropwhile(lambda name: not _is_of_scores(name), names or ())
    return names is None or (not _is_of_scores(names[0]) and all(map(_is_of_scores, after)))


def _list_columns(values: Iterable[ColumnElement[Any] | None]) -> set[Any]:
    """List the columns of the source that values are computed from."""
    found = (part for value in values if value is not None for part in visitors.iterate(value))
    return {part for part in found if isinstance(part, ColumnClause)}
