"""The rows that the fault suite exports, and a comparison of files with them."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cli import build
from config.settings import load
from config.tables import langfuse
from embedded.sample import fill
from embedded.schema import create_clickhouse_tables
from pipeline.types import FORMATS
from runtime.database import open_database
from runtime.migrations import migrate
from tests.faults.servers import Servers
from tests.oracle import raw
from tests.oracle.compare import differences
from tests.oracle.expected import expected, table_of
from tests.oracle.values import Table
from tests.services.stacks import clickhouse_database

PROJECT = "demo"
TRACES = 1200
PAYLOAD = 20_000
LARGE: dict[str, Any] = {"tableName": "traces", "filter": [], "orderBy": None}
"""Makes a file of about 16 MB: four parts."""

SMALL: dict[str, Any] = LARGE | {
    "filter": [{"type": "boolean", "column": "bookmarked", "operator": "=", "value": True}]
}
"""Makes a file smaller than a part."""

CUTOFF = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Source:
    """The rows, in a ClickHouse database and in a PostgreSQL database that each system copies."""

    clickhouse_db: str
    template: str
    rows: raw.World
    _tables: dict[str, Table] = field(default_factory=dict)
    _right: set[tuple[str, str, str]] = field(default_factory=set)

    def problems(self, query: Mapping[str, Any], file_format: str, data: bytes) -> list[str]:
        """The differences between a file and the expected rows, in words; the same bytes are compared once."""
        known = (json.dumps(dict(query), sort_keys=True), file_format, hashlib.sha256(data).hexdigest())
        if known in self._right:
            return []
        plain = data if FORMATS[file_format].packs_itself else _decompress(data, query.get("compression", "none"))
        problems = differences(expected(self._table(query["tableName"]), query), plain, file_format)
        if not problems:
            self._right.add(known)
        return problems

    def count(self, query: Mapping[str, Any]) -> int:
        """The number of rows that the file must have."""
        return len(expected(self._table(query["tableName"]), query).rows)

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            self._tables[name] = table_of(self.rows, PROJECT, name, CUTOFF)
        return self._tables[name]


@contextlib.contextmanager
def create_source(servers: Servers) -> Iterator[Source]:
    """Create the rows, and Waybill's own empty tables, while the block runs."""
    with (
        clickhouse_database(servers.clickhouse) as clickhouse_db,
        servers.postgres.running.database() as database,
    ):
        settings = load(
            {"CLICKHOUSE_URL": servers.clickhouse, "CLICKHOUSE_DB": clickhouse_db, "DATABASE_URL": database.url}
        )
        engine = open_database(settings.database)
        langfuse.create_all(engine)
        migrate(engine)
        with build.clickhouse_client(settings) as client:
            create_clickhouse_tables(client)
            fill(client, engine, rows=TRACES, projects=(PROJECT,), payload_bytes=PAYLOAD)
        rows = raw.load(servers.clickhouse, clickhouse_db, engine)
        # PostgreSQL does not copy a database that has open connections.
        engine.dispose()
        yield Source(clickhouse_db, database.url.rpartition("/")[2], rows)


def _decompress(data: bytes, compression: str) -> bytes:
    if compression == "none":
        return data
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(data), compression).read()
    return unpacked
