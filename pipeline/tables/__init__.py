"""Lists the tables that can be exported, by the name that a stored query uses: in ClickHouse, and in the database."""

from dataclasses import replace

from pipeline.tables.audit_logs import AUDIT_LOGS
from pipeline.tables.clickhouse_table import Declaration
from pipeline.tables.database_table import Relational
from pipeline.tables.dataset_items import DATASET_ITEMS
from pipeline.tables.dataset_run_items import DATASET_RUN_ITEMS
from pipeline.tables.events import EVENTS
from pipeline.tables.from_events import OBSERVATIONS_OF_EVENTS, SCORES_OF_EVENTS, SESSIONS_OF_EVENTS, TRACES_OF_EVENTS
from pipeline.tables.observations import OBSERVATIONS
from pipeline.tables.scores import SCORES
from pipeline.tables.sessions import SESSIONS
from pipeline.tables.traces import TRACES

TABLES: dict[str, Declaration] = {
    declaration.name: declaration
    for declaration in (
        replace(TRACES, otherwise=TRACES_OF_EVENTS),
        OBSERVATIONS,
        EVENTS,
        SCORES,
        SESSIONS,
        DATASET_RUN_ITEMS,
    )
}
OF_EVENTS: dict[str, Declaration] = {
    declaration.name: declaration for declaration in (OBSERVATIONS_OF_EVENTS, SCORES_OF_EVENTS, SESSIONS_OF_EVENTS)
}
"""What is read instead, by the same name, where a stored query uses the events table."""

RELATIONAL: dict[str, Relational] = {table.name: table for table in (DATASET_ITEMS, AUDIT_LOGS)}
