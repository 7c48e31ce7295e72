"""Declares the Postgres/SQLite tables: Langfuse's, which Waybill maps and never alters, and Waybill's own."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from config.instant import Instant

langfuse = MetaData()
waybill = MetaData()

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BigId = BigInteger().with_variant(Integer, "sqlite")


def _partial_index(name: str, column: str, *, where: str) -> Index:
    """Declare an index of the rows that match, which are few."""
    return Index(name, column, postgresql_where=text(where), sqlite_where=text(where))


def _stamps() -> tuple[Column[Any], Column[Any]]:
    return (
        Column("created_at", Instant, nullable=False, server_default=text("CURRENT_TIMESTAMP")),
        Column("updated_at", Instant, nullable=False, server_default=text("CURRENT_TIMESTAMP")),
    )


batch_exports = Table(
    "batch_exports",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("finished_at", Instant),
    Column("expires_at", Instant),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("query", Json, nullable=False),
    Column("format", Text, nullable=False),
    Column("url", Text),
    Column("log", Text),
    Index("batch_exports_project_id_user_id_idx", "project_id", "user_id"),
    Index("batch_exports_status_idx", "status"),
)

users = Table(
    "users",
    langfuse,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("email", Text, unique=True),
    *_stamps(),
)

projects = Table(
    "projects",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("name", Text, nullable=False),
)

comments = Table(
    "comments",
    langfuse,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("object_type", Text, nullable=False),  # an enum in Langfuse's Postgres: compare with a literal
    Column("object_id", Text, nullable=False),
    *_stamps(),
    Column("content", Text, nullable=False),
    Column("author_user_id", Text),
    Index("comments_project_id_object_type_object_id_idx", "project_id", "object_type", "object_id"),
)

trace_sessions = Table(
    "trace_sessions",
    langfuse,
    Column("id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    *_stamps(),
    Column("bookmarked", Boolean, nullable=False, server_default=false()),
    Column("public", Boolean, nullable=False, server_default=false()),
    Column("environment", Text),
    PrimaryKeyConstraint("id", "project_id"),
)

datasets = Table(
    "datasets",
    langfuse,
    Column("id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", Json),
    *_stamps(),
    PrimaryKeyConstraint("id", "project_id"),
)

dataset_items = Table(
    "dataset_items",
    langfuse,
    Column("id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("dataset_id", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="ACTIVE"),  # an enum in Langfuse's Postgres
    Column("input", Json),
    Column("expected_output", Json),
    Column("metadata", Json),
    Column("source_trace_id", Text),
    Column("source_observation_id", Text),
    *_stamps(),
    Column("valid_from", Instant, nullable=False),
    Column("valid_to", Instant),
    Column("is_deleted", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("id", "project_id", "valid_from"),
    Index("dataset_items_project_id_dataset_id_idx", "project_id", "dataset_id"),
)

audit_logs = Table(
    "audit_logs",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("type", Text, nullable=False, server_default="USER"),  # an enum in Langfuse's Postgres
    Column("api_key_id", Text),
    Column("user_id", Text),
    Column("org_id", Text, nullable=False),
    Column("user_org_role", Text),
    Column("project_id", Text),
    Column("user_project_role", Text),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("audit_logs_project_id_idx", "project_id"),
)

models = Table(
    "models",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("project_id", Text),
    Column("model_name", Text, nullable=False),
    Column("match_pattern", Text, nullable=False),
    Column("unit", Text),
)

pricing_tiers = Table(
    "pricing_tiers",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("model_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("is_default", Boolean, nullable=False, server_default=false()),
    Column("priority", Integer, nullable=False, server_default="0"),
)

prices = Table(
    "prices",
    langfuse,
    Column("id", Text, primary_key=True),
    *_stamps(),
    Column("model_id", Text, nullable=False),
    Column("project_id", Text),
    Column("pricing_tier_id", Text, nullable=False),
    Column("usage_type", Text, nullable=False),
    Column("price", Numeric(65, 30), nullable=False),
)

runs = Table(
    "waybill_runs",
    waybill,
    Column("export_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("claimed_at", Instant, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("outcome", Text),
    Column("failures", Integer, nullable=False, server_default="0"),  # failed attempts in a row before this one
    Column("error_class", Text),
    Column("error", Text),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("object_key", Text),
    Column("sha256", Text),
    Column("truncated", Boolean, nullable=False, server_default=false()),
    Column("next_attempt_at", Instant),
    Column("traceparent", Text),
    Column("ignored", Text),  # the keys of the query that are unknown, as a text for people
    Column("stage", Text),
    PrimaryKeyConstraint("export_id", "attempt"),
    Index("waybill_runs_open_idx", "finished_at", "lease_until"),
    _partial_index("waybill_runs_file_idx", "finished_at", where="object_key IS NOT NULL"),
)

outbox = Table(
    "waybill_outbox",
    waybill,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("published_at", Instant),
    Column("traceparent", Text),
    Index("waybill_outbox_published_at_idx", "published_at"),
    _partial_index("waybill_outbox_waiting_idx", "id", where="published_at IS NULL"),
)

notices = Table(
    "waybill_notices",
    waybill,
    Column("event_id", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("export_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("next_attempt_at", Instant),
    Column("sent_at", Instant),
    Column("message_id", Text),
    Column("error", Text),
    Column("traceparent", Text),
    PrimaryKeyConstraint("event_id", "channel"),
    # Two events for the same end of an export make one notice.
    Index("waybill_notices_ending_idx", "export_id", "attempt", "status", "channel", unique=True),
    _partial_index("waybill_notices_open_idx", "next_attempt_at", where="state IN ('pending', 'sending')"),
    Index("waybill_notices_created_at_idx", "created_at"),
)
