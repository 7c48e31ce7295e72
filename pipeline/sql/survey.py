"""Compiles what is asked of a table before its rows are read."""

from collections.abc import Sequence
from typing import Any

from clickhouse_connect.cc_sqlalchemy import select
from sqlalchemy import ColumnElement, FromClause, Select, func, literal

from pipeline.sql.clickhouse import EPOCH, bind_text, is_after


def select_survey(
    rows: FromClause, wide: Sequence[ColumnElement[Any]], moment: ColumnElement[Any], project_id: str
) -> Select[Any]:
    """Select what is known of a project's rows in all their versions.

    `bytes` is the size of the widest, `by_day` whether all days are of toDate()'s range, `rows` how many there are.
    """
    size: ColumnElement[int] = literal(0)
    for value in wide:
        size += func.coalesce(func.length(value), func.toUInt64(0))
    by_day = is_after(func.min(moment), EPOCH, inclusive=True)
    return (
        select(func.max(size).label("bytes"), by_day.label("by_day"), func.count().label("rows"))
        .select_from(rows)
        .where(rows.c.project_id == bind_text(project_id))
    )
