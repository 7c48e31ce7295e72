"""Lists the tables that can be exported, by the name that a stored query uses."""

from dataclasses import replace
from typing import TypeAlias

from config.errors import Rejected
from pipeline.request import ExportQuery
from pipeline.tables.audit_logs import AUDIT_LOGS
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.database_table import DatabaseTable
from pipeline.tables.dataset_items import DATASET_ITEMS
from pipeline.tables.dataset_run_items import DATASET_RUN_ITEMS
from pipeline.tables.events import EVENTS
from pipeline.tables.from_events import (
    OBSERVATIONS_FROM_EVENTS,
    SCORES_FROM_EVENTS,
    SESSIONS_FROM_EVENTS,
    TRACES_FROM_EVENTS,
)
from pipeline.tables.observations import OBSERVATIONS
from pipeline.tables.scores import SCORES
from pipeline.tables.sessions import SESSIONS
from pipeline.tables.traces import TRACES

TableDeclaration: TypeAlias = ClickHouseTable | DatabaseTable

TABLES: dict[str, TableDeclaration] = {
    table.name: table
    for table in (
        replace(TRACES, fallback=TRACES_FROM_EVENTS),
        replace(OBSERVATIONS, from_events=OBSERVATIONS_FROM_EVENTS),
        EVENTS,
        replace(SCORES, from_events=SCORES_FROM_EVENTS),
        replace(SESSIONS, from_events=SESSIONS_FROM_EVENTS),
        DATASET_RUN_ITEMS,
        DATASET_ITEMS,
        AUDIT_LOGS,
    )
}


def find_table(name: str) -> TableDeclaration:
    """Return the table of that name; raises Rejected, with the names of all that can be exported, if there is none."""
    if name not in TABLES:
        raise Rejected(f"The table {name[:40]!r} can't be exported. Tables that can be: {', '.join(sorted(TABLES))}.")
    return TABLES[name]


def resolve_table(query: ExportQuery) -> TableDeclaration:
    """Return the table that a query reads: the one it names, or that one's variant made of events if it asks for those.

    Raises Rejected as `find_table` does.
    """
    table = find_table(query.table_name)
    if query.use_events_table and isinstance(table, ClickHouseTable) and table.from_events is not None:
        return table.from_events
    return table
