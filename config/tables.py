"""Declares the Postgres/SQLite tables: Langfuse's, which Waybill maps and never alters, and Waybill's own."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

langfuse = MetaData()
waybill = MetaData()

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BigId = BigInteger().with_variant(Integer, "sqlite")


class _SqliteInstant(sqlite.DATETIME):
    """A time of SQLite, which stores any value in any column: one that is not a time is read as the first datetime."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Return the function that reads a stored value."""
        read: Any = super().result_processor(dialect, coltype)

        def read_any(value: Any) -> datetime | None:
            try:
                found: datetime | None = read(value)
            except (ValueError, TypeError):
                return datetime.min.replace(tzinfo=UTC)
            return found

        return read_any


_SQLITE_INSTANT = _SqliteInstant()  # type: ignore[no-untyped-call] # SQLAlchemy's constructor has no types


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as Langfuse stores it: a timestamp without time zone, in UTC.

    Reading never raises: what is not a time in SQLite is the first datetime, and what Postgres stores before the year
    1 or after 9999 is the first or the last datetime (see runtime/database.py).
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that reads and writes it in this database."""
        return dialect.type_descriptor(_SQLITE_INSTANT if dialect.name == "sqlite" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Convert to UTC and drop the time zone; raise ValueError for a naive datetime, because its zone is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: pass an aware one")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Return an aware UTC datetime, whether the column has a time zone or not."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


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
    PrimaryKeyConstraint("export_id", "attempt"),
    Index("waybill_runs_open_idx", "finished_at", "lease_until"),
    Index("waybill_runs_next_attempt_at_idx", "next_attempt_at"),
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
    Index("waybill_notices_next_attempt_at_idx", "next_attempt_at"),
)
