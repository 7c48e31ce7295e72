"""A world of random rows in all databases, and files of it compared with what the oracle expects."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.encode import FORMATS
from pipeline.encode.options import EncodeOptions
from pipeline.read import open_table
from pipeline.spec import read_spec
from pipeline.types import Progress
from tests.contract import reading
from tests.oracle import load, raw, worlds
from tests.oracle.compare import differences
from tests.oracle.expected import expected, table_of
from tests.oracle.pools import CUTOFF
from tests.oracle.values import Table
from tests.services.stacks import Stack


@dataclass(frozen=True)
class Filled:
    """Databases with a world in them, as the product reads them and as the oracle does."""

    world: reading.World
    rows: raw.World

    @cached_property
    def _tables(self) -> dict[tuple[str, str, bool], Table]:
        return {}

    def table(self, project: str, name: str, *, events: bool = False) -> Table:
        """All rows of a table, by the oracle."""
        key = (project, name, events)
        if key not in self._tables:
            self._tables[key] = table_of(self.rows, project, name, CUTOFF, use_events_table=events)
        return self._tables[key]

    def problems(self, project: str, query: Mapping[str, Any], form: str) -> list[str]:
        """What is wrong with the file that the product makes of a stored query."""
        table = self.table(project, query["tableName"], events=query.get("useEventsTable", False))
        return differences(expected(table, query), self.file(project, query, form), form)

    def file(self, project: str, query: Mapping[str, Any], form: str) -> bytes:
        """The file that the product makes of a stored query."""
        spec = read_spec(
            project_id=project, export_id="e", attempt=1, created_at=CUTOFF, query=dict(query), format=form
        )
        with open_table(spec, self.world.sources, Progress()) as table:
            pieces = FORMATS[form].encode(table.columns, table.enrich(table.batches), EncodeOptions())
            return b"".join(bytes(piece) for piece in pieces)


@contextmanager
def filled(stack: Stack, seed: int) -> Iterator[Filled]:
    """Fill the databases of a stack with the world of a seed."""
    environment = stack.environment()
    world = reading.world(environment)
    address, database = environment["CLICKHOUSE_URL"], environment["CLICKHOUSE_DB"]
    load.fill(address, database, world.database, worlds.make(seed))
    try:
        yield Filled(world, raw.load(address, database, world.database))
    finally:
        world.client.close()
        world.database.dispose()
