"""Lets runs, events and notices keep the trace that they belong to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("waybill_runs", "waybill_outbox", "waybill_notices")


def upgrade() -> None:
    """Add the column; daemons of the version before write rows without it."""
    for table in TABLES:
        op.add_column(table, sa.Column("traceparent", sa.Text()))


def downgrade() -> None:
    """Drop it."""
    for table in TABLES:
        op.drop_column(table, "traceparent")
