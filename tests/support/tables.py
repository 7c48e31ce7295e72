"""Lists the registered tables and every way to read one, so that tests have a case for each."""

from pipeline.tables import TABLES
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.database_table import DatabaseTable

CLICKHOUSE_TABLES = {name: table for name, table in TABLES.items() if isinstance(table, ClickHouseTable)}
DATABASE_TABLES = {name: table for name, table in TABLES.items() if isinstance(table, DatabaseTable)}

EVENT_VARIANTS = {name: table.from_events for name, table in CLICKHOUSE_TABLES.items() if table.from_events is not None}
"""What is read where a query asks for the events table."""

READINGS = [(name, False) for name in sorted(TABLES)] + [(name, True) for name in sorted(EVENT_VARIANTS)]
"""Each table, and whether the query asks for the events table."""
