"""Looks up the names of the authors of a batch's scores."""

import pyarrow as pa
from sqlalchemy import Engine, select

from config.tables import users
from pipeline.enrich.lookup import list_distinct, make_texts
from pipeline.interrupt import connect
from pipeline.sql.postgres import is_one_of

AUTHOR = "authorUserName"
AUTHOR_ID = "#authorUserId"
"""The column of the authors' ids."""


def make_authors(database: Engine, _project_id: str) -> "Authors":
    """Make the enricher; users are shared by all projects."""
    return Authors(database)


class Authors:
    """Adds the column `authorUserName`, null for unknown users; raises Unavailable when the database fails."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with the column at its end."""
        ids = batch.column(AUTHOR_ID)
        return batch.append_column(AUTHOR, make_texts(ids, self._load_names(list_distinct(ids)), default=None))

    def _load_names(self, ids: list[str]) -> dict[str, str | None]:
        if not ids:
            return {}
        statement = select(users.c.id, users.c.name).where(is_one_of(users.c.id, ids, self._database))
        with connect(self._database) as connection:
            return {row.id: row.name for row in connection.execute(statement)}
