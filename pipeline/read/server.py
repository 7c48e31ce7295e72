"""Reads the version and the columns of a ClickHouse server, and which settings its user may change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client

from config.errors import Rejected
from pipeline.read.clickhouse_settings import BOUNDED, EQUIVALENT, FAULTY, OPTIONAL, REQUIRED, Limit, Limits
from pipeline.sql.compile import Absent
from pipeline.sql.events import events
from pipeline.sql.sources import Source, dataset_run_items, observations, scores, traces

MAX_BLOCK_SIZE = "max_block_size"
CONDITION_CACHE = "use_query_condition_cache"
# One row each, because a profile may cut results (`limit`) before it is known.
_SETTINGS = (
    "SELECT groupArray((name, value, min, max, readonly)) FROM system.settings WHERE name IN {names:Array(String)}"
)
_COLUMNS = (
    "SELECT groupArray((table, name)) FROM system.columns "
    "WHERE database = currentDatabase() AND table IN {names:Array(String)}"
)
SOURCES: dict[str, Source] = {
    each.table.name: each for each in (traces, observations, scores, dataset_run_items, events)
}
"""Langfuse's tables by name."""


@dataclass(frozen=True)
class Server:
    """What is known of a server: `version`, the `limits` of settings, and the `columns` of Langfuse's tables.

    A table that the server does not have is not in `columns`.
    """

    version: str = ""
    limits: Limits = field(default_factory=Limits)
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def find_absent(self) -> Absent:
        """Return the columns that the tables lack; raises Rejected if one is among them that every Langfuse has."""
        lacking = {
            name: frozenset(column.name for column in SOURCES[name].table.columns) - columns
            for name, columns in self.columns.items()
        }
        for name, columns in lacking.items():
            if essential := sorted(columns - SOURCES[name].later):
                raise Rejected(
                    f"In ClickHouse the table {name} has no column {', '.join(essential)}, or the user of "
                    "CLICKHOUSE_USER may not read it. Ask your administrator: is CLICKHOUSE_DB Langfuse's database, "
                    f"and does the user have SELECT on {name}?"
                )
        return lacking


def read_server(client: Client) -> Server:
    """Read what is known of the client's server; raises the client's errors."""
    more = [*FAULTY, *(other for other, _ in EQUIVALENT.values()), MAX_BLOCK_SIZE, CONDITION_CACHE]
    names = [*REQUIRED, *OPTIONAL, *BOUNDED, *more]
    limits = {
        name: Limit(value, low, high, bool(readonly))
        for name, value, low, high, readonly in _read_list(client, _SETTINGS, names)
    }
    present: dict[str, set[str]] = {}
    for table, name in _read_list(client, _COLUMNS, list(SOURCES)):
        present.setdefault(table, set()).add(name)
    columns = {table: frozenset(names) for table, names in present.items()}
    return Server(client.server_version or "", Limits(limits), columns)


def _read_list(client: Client, statement: str, names: list[str]) -> list[tuple[Any, ...]]:
    rows = client.query(statement, parameters={"names": names}).result_rows
    return list(rows[0][0]) if rows else []
