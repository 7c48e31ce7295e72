"""Adds the keys of a query that an attempt ignored."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is nullable, because daemons of the previous version write rows without it."""
    op.add_column("waybill_runs", sa.Column("ignored", sa.Text()), schema=op.get_context().version_table_schema)


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("waybill_runs", "ignored", schema=op.get_context().version_table_schema)
