"""Compiles what is asked of comments: found in the application's database, and sent along with the statement."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from clickhouse_connect.cc_sqlalchemy import select as select_sent
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
from pipeline.database import NUL
from pipeline.tables.clickhouse_table import Filterable, OfComments, Related, Sent

Asked: TypeAlias = stored.StringFilter | stored.StringOptionsFilter | stored.NullFilter

COUNTS = table("comment_counts", column("object_id", String()), column("comments", Integer()))


_SAID: dict[str, Callable[[Column[str], str], ColumnElement[bool]]] = {
    "=": lambda content, wanted: func.lower(content) == func.lower(wanted),
    "contains": lambda content, wanted: content.icontains(wanted, autoescape=True),
    "does not contain": lambda content, wanted: content.icontains(wanted, autoescape=True),
    "starts with": lambda content, wanted: content.istartswith(wanted, autoescape=True),
    "ends with": lambda content, wanted: content.iendswith(wanted, autoescape=True),
}


def filterables(object_type: str, key: ColumnElement[str]) -> tuple[Filterable, OfComments]:
    """Make the two columns that speak of comments on objects of a kind, a value of the application's enum."""
    sent = Sent(COUNTS.name, "object_id String, comments UInt64", partial(_counted, object_type))
    counts = Related("commented", key, _counts, sent)
    value = column("comment_count", Integer())
    return (
        Filterable("commentCount", ("Comment Count",), "number", value, of=counts, places=0),
        OfComments("commentContent", ("Comment Content",), object_type, key),
    )


def matching(asked: OfComments, each: Asked, place: int) -> Sent:
    """Find the objects with a comment that meets the operator, or its positive twin, of the filter in that place."""
    return Sent(_name(place), "object_id String", partial(_found, asked.object_type, each))


def holds(asked: OfComments, place: int) -> ColumnElement[bool]:
    """Ask whether a row is among the objects that `matching` found for the filter in that place."""
    found = table(_name(place), column("object_id", String()))
    return asked.key.in_(select_sent(found.c.object_id))


def _name(place: int) -> str:
    return f"commented_{place}"


def _counts(project_id: str, cutoff: datetime) -> Select[Any]:  # noqa: ARG001 (what is sent is the project's own)
    return select_sent(COUNTS.c.object_id.label("commented_key"), COUNTS.c.comments.label("comment_count"))


def _counted(object_type: str, project_id: str, database: Engine) -> Select[Any]:  # noqa: ARG001 (any database takes it)
    return (
        select(comments.c.object_id, func.count()).where(_about(object_type, project_id)).group_by(comments.c.object_id)
    )


def _found(object_type: str, each: Asked, project_id: str, database: Engine) -> Select[Any]:
    return select(comments.c.object_id).distinct().where(_about(object_type, project_id), _said(each, database))


def _about(object_type: str, project_id: str) -> ColumnElement[bool]:
    return and_(comments.c.project_id == project_id, comments.c.object_type == literal_column(f"'{object_type}'"))


def _said(each: Asked, database: Engine) -> ColumnElement[bool]:
    """Ask what a comment says, in any case; a text with NUL is in none, for Postgres takes it in no text."""
    content = comments.c.content
    if isinstance(each, stored.NullFilter):
        return true()
    if isinstance(each, stored.StringOptionsFilter):
        return func.lower(content).in_(_lowered([value for value in each.value if NUL not in value], database))
    if NUL in each.value:
        return false()
    return _SAID[each.operator](content, each.value)


def _lowered(values: list[str], database: Engine) -> Select[Any]:
    if database.dialect.name == "postgresql":
        listed = func.unnest(bindparam(None, values, type_=ARRAY(Text), unique=True)).column_valued("wanted")
        return select(func.lower(listed))
    wanted = func.json_each(json.dumps(values)).table_valued("value")
    return select(func.lower(wanted.c.value))
