"""Declares the columns of comments, which are looked up in Langfuse's Postgres and sent with the statement."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select as select_external
from sqlalchemy import (
    Column,
    ColumnElement,
    Engine,
    Integer,
    Select,
    String,
    Text,
    and_,
    bindparam,
    column,
    false,
    func,
    literal_column,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from config.tables import comments
from pipeline import request as stored
from pipeline.sql.postgres import NUL
from pipeline.tables.columns import CommentsFilterable, ExternalTable, Filterable, Join

CommentFilter: TypeAlias = stored.StringFilter | stored.StringOptionsFilter | stored.NullFilter

COUNTS = table("comment_counts", column("object_id", String()), column("comments", Integer()))

_CONDITIONS: dict[str, Callable[[Column[str], str], ColumnElement[bool]]] = {
    "=": lambda content, wanted: func.lower(content) == func.lower(wanted),
    "contains": lambda content, wanted: content.icontains(wanted, autoescape=True),
    "does not contain": lambda content, wanted: content.icontains(wanted, autoescape=True),
    "starts with": lambda content, wanted: content.istartswith(wanted, autoescape=True),
    "ends with": lambda content, wanted: content.iendswith(wanted, autoescape=True),
}


def comment_filterables(object_type: str, key: ColumnElement[str]) -> tuple[Filterable, CommentsFilterable]:
    """Return the two columns about the comments on objects of a type, which is a value of Langfuse's enum."""
    external = ExternalTable(COUNTS.name, "object_id String, comments UInt64", partial(_select_counts, object_type))
    counts = Join("commented", key, _select_external_counts, external)
    value = column("comment_count", Integer())
    return (
        Filterable("commentCount", ("Comment Count",), "number", value, join=counts, places=0),
        CommentsFilterable("commentContent", ("Comment Content",), object_type, key),
    )


def external_table(commented: CommentsFilterable, each: CommentFilter, place: int) -> ExternalTable:
    """Return the ids of the objects with a comment that meets the filter, or the opposite of a negative filter.

    `place` is the filter's place in the query, and part of the table's name.
    """
    return ExternalTable(_name(place), "object_id String", partial(_select_matches, commented.object_type, each))


def has_comment(commented: CommentsFilterable, place: int) -> ColumnElement[bool]:
    """Return whether a row is among the objects in the `external_table` of the filter in that place."""
    matches = table(_name(place), column("object_id", String()))
    return commented.key.in_(select_external(matches.c.object_id))


def _name(place: int) -> str:
    return f"commented_{place}"


def _select_external_counts(project_id: str, cutoff: datetime) -> Select[Any]:  # noqa: ARG001 (the table is the project's)
    return select_external(COUNTS.c.object_id.label("commented_key"), COUNTS.c.comments.label("comment_count"))


def _select_counts(object_type: str, project_id: str, database: Engine) -> Select[Any]:  # noqa: ARG001 (same for both databases)
    return (
        select(comments.c.object_id, func.count()).where(_is_on(object_type, project_id)).group_by(comments.c.object_id)
    )


def _select_matches(object_type: str, each: CommentFilter, project_id: str, database: Engine) -> Select[Any]:
    return select(comments.c.object_id).distinct().where(_is_on(object_type, project_id), _matches(each, database))


def _is_on(object_type: str, project_id: str) -> ColumnElement[bool]:
    return and_(comments.c.project_id == project_id, comments.c.object_type == literal_column(f"'{object_type}'"))


def _matches(each: CommentFilter, database: Engine) -> ColumnElement[bool]:
    """Compare a comment's text, ignoring case; no comment contains NUL, because Postgres accepts it in no text."""
    content = comments.c.content
    if isinstance(each, stored.NullFilter):
        return true()
    if isinstance(each, stored.StringOptionsFilter):
        return func.lower(content).in_(_select_lowered([value for value in each.value if NUL not in value], database))
    if NUL in each.value:
        return false()
    return _CONDITIONS[each.operator](content, each.value)


def _select_lowered(values: list[str], database: Engine) -> Select[Any]:
    if database.dialect.name == "postgresql":
        listed = func.unnest(bindparam(None, values, type_=ARRAY(Text), unique=True)).column_valued("wanted")
        return select(func.lower(listed))
    wanted = func.json_each(json.dumps(values)).table_valued("value")
    return select(func.lower(wanted.c.value))
