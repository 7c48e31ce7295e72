"""Databases of a test: opened empty, filled with rows as JSON, and read through the product as Python values."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from config.settings import load
from embedded.schema import create_langfuse_schema
from pipeline.progress import Progress, watch
from pipeline.read import open_table
from pipeline.read.connections import ClickHouse, Sources
from pipeline.read.open_table import Table
from pipeline.spec import read_spec
from pipeline.types import Column, OutputOptions

CUTOFF = datetime(2026, 6, 1, tzinfo=UTC)
MAY = "2026-05-10 12:00:00.000"

Row = Mapping[str, object]


@dataclass(frozen=True)
class Read:
    """The rows that one export read."""

    columns: tuple[Column, ...]
    rows: list[dict[str, Any]]
    truncated: bool
    batches: list[pa.RecordBatch]

    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]


@dataclass(frozen=True)
class Databases:
    """ClickHouse and the SQL database of a test, and ways to fill and to read them."""

    sources: Sources
    client: Client
    engine: Engine

    def put(self, table: str, *rows: Row) -> None:
        """Insert rows into a ClickHouse table as one part."""
        lines = "\n".join(json.dumps(row) for row in rows)
        self.client.raw_insert(
            table, insert_block=lines, fmt="JSONEachRow", settings={"date_time_input_format": "best_effort"}
        )

    def traces(self, *rows: Row) -> None:
        self.put("traces", *({**TRACE, **row} for row in rows))

    def scores(self, *rows: Row) -> None:
        self.put("scores", *({**SCORE, "id": f"score {index}", **row} for index, row in enumerate(rows)))

    def read(
        self,
        *,
        project: str = "p",
        form: str = "PARQUET",
        limit: int | None = None,
        progress: Progress | None = None,
        each: Callable[[pa.RecordBatch], None] = lambda _: None,
        **query: object,
    ) -> Read:
        progress = progress or Progress()
        batches = []

        def keep(batch: pa.RecordBatch) -> None:
            each(batch)
            batches.append(batch)

        table = self.read_through(keep, project=project, form=form, limit=limit, progress=progress, **query)
        rows = [row for batch in batches for row in batch.to_pylist()]
        return Read(table.columns, rows, table.truncated, batches)

    def read_through(
        self,
        each: Callable[[pa.RecordBatch], None],
        *,
        project: str = "p",
        form: str = "CSV",
        limit: int | None = None,
        progress: Progress | None = None,
        **query: object,
    ) -> Table:
        """Read a table to its end without keeping its batches."""
        spec = read_spec(
            project_id=project,
            export_id="e",
            attempt=1,
            created_at=CUTOFF,
            query={"tableName": "traces", "filter": None, "orderBy": None, **query},
            format=form,
            output=OutputOptions(row_limit=limit),
        )
        progress = progress or Progress()
        with open_table(spec, self.sources, progress) as table:
            for batch in table.enrich(watch(table.batches, progress, "e")):
                each(batch)
            return table

    def ids(self, *filters: Row, **query: object) -> list[str]:
        """Read the ids of the rows that match the filters."""
        return self.read(filter=list(filters), **query).ids()  # type: ignore[arg-type] # query is JSON


TRACE: Row = {"id": "t", "project_id": "p", "timestamp": MAY, "name": "n", "event_ts": MAY, "is_deleted": 0}
SCORE: Row = {
    "project_id": "p",
    "trace_id": "t",
    "timestamp": MAY,
    "name": "s",
    "value": 1,
    "data_type": "NUMERIC",
    "created_at": MAY,
    "event_ts": MAY,
    "is_deleted": 0,
}
OBSERVATION: Row = {
    "id": "o",
    "trace_id": "t",
    "project_id": "p",
    "type": "SPAN",
    "name": "n",
    "level": "DEFAULT",
    "start_time": MAY,
    "event_ts": MAY,
    "is_deleted": 0,
}
EVENT: Row = {"project_id": "p", "trace_id": "t", "span_id": "e", "start_time": MAY, "name": "n", "event_ts": MAY}
RUN_ITEM: Row = {
    "project_id": "p",
    "dataset_run_id": "r",
    "dataset_item_id": "i",
    "dataset_id": "d",
    "trace_id": "t",
    "dataset_run_name": "run",
    "created_at": MAY,
    "updated_at": MAY,
    "event_ts": MAY,
    "is_deleted": 0,
}


@contextmanager
def open_databases(environment: Mapping[str, str], url: str | None = None) -> Iterator[Databases]:
    """Create Langfuse's schema in the databases of these settings; read through `url` if it is given."""
    settings = load(environment)
    assert settings.clickhouse_url is not None
    host, port = settings.clickhouse_url.removeprefix("http://").split(":")
    client = get_client(
        host=host,
        port=int(port),
        username=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=settings.clickhouse_db,
        autogenerate_session_id=False,
    )
    engine = create_engine(settings.database)
    create_langfuse_schema(client, engine)
    clickhouse = ClickHouse(
        url or settings.clickhouse_url,
        settings.clickhouse_user,
        settings.clickhouse_password.get_secret_value(),
        settings.clickhouse_db,
    )
    try:
        yield Databases(Sources(clickhouse, engine), client, engine)
    finally:
        client.close()
        engine.dispose()
