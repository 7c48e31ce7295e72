"""Looks up the comments on a batch's rows."""

import json
from collections import defaultdict
from typing import Any

import polars as pl
import pyarrow as pa
from sqlalchemy import Engine, Select, and_, literal_column, select

from config.tables import comments, users
from pipeline.enrich.lookup import make_texts
from pipeline.interrupt import connect
from pipeline.sql.postgres import is_one_of

COMMENTS = "comments"
NO_COMMENTS = "[]"
CACHED_IDS = 20_000
"""Up to this many ids of objects with comments are cached, so that only those are queried."""


class Comments:
    """Adds the column `comments`: a JSON array of `{id, content, author_email, created_at}`, the oldest first.

    `on` is the type of the rows' objects, a value of Langfuse's enum. Raises Unavailable when the database fails.
    """

    def __init__(self, database: Engine, project_id: str, on: str) -> None:
        self._database = database
        self._object = and_(comments.c.project_id == project_id, comments.c.object_type == literal_column(f"'{on}'"))
        commented = select(comments.c.object_id).where(self._object).distinct().limit(CACHED_IDS + 1)
        with connect(database) as connection:
            known = pl.Series(connection.scalars(commented).all(), dtype=pl.String)
        self._known = known if len(known) <= CACHED_IDS else None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the column at its end."""
        ids = batch.column("id")
        found = self._load_comments(self._list_candidates(ids))
        return batch.append_column(COMMENTS, make_texts(ids, found, default=NO_COMMENTS))

    def _list_candidates(self, ids: pa.Array) -> list[str]:
        """List the objects that may have comments."""
        series = pl.Series(ids, dtype=pl.String)
        return (series if self._known is None else series.filter(series.is_in(self._known.implode()))).to_list()

    def _load_comments(self, ids: list[str]) -> dict[str, str]:
        if not ids:
            return {}
        by_object: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
        with connect(self._database) as connection:
            for row in connection.execute(self._statement(ids)):
                by_object[row.object_id].append(
                    {
                        "id": row.id,
                        "content": row.content,
                        "author_email": row.email,
                        "created_at": row.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    }
                )
        return {owner: json.dumps(each, ensure_ascii=False) for owner, each in by_object.items()}

    def _statement(self, ids: list[str]) -> Select[Any]:
        return (
            select(comments.c.object_id, comments.c.id, comments.c.content, users.c.email, comments.c.created_at)
            .select_from(comments.outerjoin(users, users.c.id == comments.c.author_user_id))
            .where(self._object, is_one_of(comments.c.object_id, ids, self._database))
            .order_by(comments.c.created_at, comments.c.id)
        )
