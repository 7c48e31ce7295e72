"""Looks up the comments on a batch's rows."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, Row, Select, and_, func, literal_column, select

from config.tables import comments, users
from pipeline.interrupt import connect
from pipeline.sql.postgres import count_bytes, is_one_of

COMMENTS = "comments"
NO_COMMENTS = "[]"
CACHED_IDS = 20_000
"""Up to this many ids of objects with comments are cached, so that only those are queried."""

LOADED_COMMENTS, LOADED_BYTES = 20_000, 2_000_000
"""Up to these limits, a project's comments are read once for an export, because each statement has a fixed cost."""

CHUNK_ROWS = 1_000
"""Comments are read in chunks of this many, because making Python values of them holds the interpreter's lock."""

_FOUND = {"object_id": pl.String, "text": pl.String}


class Comments:
    """Adds the column `comments`: a JSON array of `{id, content, author_email, created_at}`, the oldest first.

    `on` is the type of the rows' objects, a value of Langfuse's enum. Raises Unavailable when the database fails.
    """

    def __init__(self, database: Engine, project_id: str, on: str) -> None:
        self._database = database
        self._object = and_(comments.c.project_id == project_id, comments.c.object_type == literal_column(f"'{on}'"))
        sizes = (func.count(), func.sum(count_bytes(comments.c.content, database)))
        commented = select(comments.c.object_id, *sizes).where(self._object).group_by(comments.c.object_id)
        with connect(database) as connection:
            found = connection.execute(commented.limit(CACHED_IDS + 1)).all()
        ids = [row[0] for row in found]
        count, size = (sum(row[place] for row in found) for place in (1, 2))
        self._known = pl.Series(ids, dtype=pl.String) if len(ids) <= CACHED_IDS else None
        few = self._known is not None and count <= LOADED_COMMENTS and size <= LOADED_BYTES
        self._loaded = self._load_comments(ids) if few else None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the column at its end."""
        ids = batch.column("id")
        known, texts = self._loaded or self._load_comments(self._list_candidates(ids))
        cells = texts.take(pc.index_in(ids, value_set=known)).fill_null(NO_COMMENTS)
        return batch.append_column(COMMENTS, cells)

    def _list_candidates(self, ids: pa.Array) -> list[str]:
        """List the objects that may have comments."""
        series = pl.Series(ids, dtype=pl.String)
        return (series if self._known is None else series.filter(series.is_in(self._known.implode()))).to_list()

    def _load_comments(self, ids: list[str]) -> tuple[pa.Array, pa.Array]:
        """Return the objects that have comments, and the comments of each as a JSON array."""
        if not ids:
            return pa.array([], pa.string()), pa.array([], pa.string())
        found = pl.DataFrame(schema=_FOUND)
        with (
            connect(self._database) as connection,
            connection.execute(self._statement(ids), execution_options={"yield_per": CHUNK_ROWS}) as rows,
        ):
            found = pl.concat([found, *(_encode(part) for part in rows.partitions())])
        each_object = found.group_by("object_id", maintain_order=True).agg(pl.col("text").str.join(", "))
        written = each_object.with_columns(text=pl.concat_str(pl.lit("["), pl.col("text"), pl.lit("]")))
        known, texts = (column.to_arrow().cast(pa.string()) for column in written)
        return known, texts

    def _statement(self, ids: list[str]) -> Select[Any]:
        return (
            select(comments.c.object_id, comments.c.id, comments.c.content, users.c.email, comments.c.created_at)
            .select_from(comments.outerjoin(users, users.c.id == comments.c.author_user_id))
            .where(self._object, is_one_of(comments.c.object_id, ids, self._database))
            .order_by(comments.c.created_at, comments.c.id)
        )


def _encode(rows: Sequence[Row[Any]]) -> pl.DataFrame:
    """Return each comment's object, and the comment as JSON."""
    object_ids, ids, contents, emails, times = zip(*rows, strict=True)
    texts = {"object_id": object_ids, "id": ids, "content": contents, "email": emails}
    frame = pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))
    return frame.with_columns(pl.Series("created_at", times, dtype=pl.Datetime("us", "UTC"))).select(
        "object_id",
        text=pl.concat_str(
            pl.lit('{"id": '),
            _to_json("id"),
            pl.lit(', "content": '),
            _to_json("content"),
            pl.lit(', "author_email": '),
            _to_json("email"),
            pl.lit(', "created_at": "'),
            pl.col("created_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
            pl.lit('"}'),
        ),
    )


def _to_json(name: str) -> pl.Expr:
    """Return a column of texts as JSON; null becomes JSON's null."""
    return pl.struct(pl.col(name).alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
