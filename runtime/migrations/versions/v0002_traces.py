"""Adds the trace of a request to runs, events and notices."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("waybill_runs", "waybill_outbox", "waybill_notices")


def upgrade() -> None:
    """Add the column; it is nullable, because daemons of the previous version write rows without it."""
    for table in TABLES:
        op.add_column(table, sa.Column("traceparent", sa.Text()), schema=op.get_context().version_table_schema)


def downgrade() -> None:
    """Drop the column."""
    for table in TABLES:
        op.drop_column(table, "traceparent", schema=op.get_context().version_table_schema)
