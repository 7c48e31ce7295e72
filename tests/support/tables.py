"""Lists the registered tables and every way to read one, so that tests have a case for each."""

from typing import Any

from pipeline.tables import TABLES
from pipeline.tables.clickhouse_table import ClickHouseTable
from pipeline.tables.database_table import DatabaseTable

CLICKHOUSE_TABLES = {name: table for name, table in TABLES.items() if isinstance(table, ClickHouseTable)}
DATABASE_TABLES = {name: table for name, table in TABLES.items() if isinstance(table, DatabaseTable)}

EVENT_VARIANTS = {name: table.from_events for name, table in CLICKHOUSE_TABLES.items() if table.from_events is not None}
"""What is read where a query asks for the events table."""

READINGS = [(name, False) for name in sorted(TABLES)] + [(name, True) for name in sorted(EVENT_VARIANTS)]
"""Each table, and whether the query asks for the events table."""

LATER = {
    "traces": ("environment",),
    "observations": (
        *("environment", "usage_pricing_tier_id", "usage_pricing_tier_name"),
        *("tool_definitions", "tool_calls", "tool_call_names"),
    ),
    "scores": (
        *("environment", "metadata", "session_id", "dataset_run_id", "execution_trace_id", "long_string_value"),
        *("ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"),
    ),
    "events_full": ("ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version"),
}
"""The columns that Langfuse's migrations have added to its first tables, by table."""
INDEXES = {"scores": ("idx_project_session", "idx_project_dataset_run")}


def drop_later_columns(client: Any) -> None:
    """Turn the tables in ClickHouse into those of an older Langfuse."""
    client.command("DROP VIEW events_core_mv")
    for table, columns in LATER.items():
        for index in INDEXES.get(table, ()):
            client.command(f"ALTER TABLE {table} DROP INDEX {index}")
        for column in columns:
            client.command(f"ALTER TABLE {table} DROP COLUMN {column}")
