"""Adds the stage that a running attempt spends most of its time in."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is nullable, because daemons of the previous version write rows without it."""
    op.add_column("waybill_runs", sa.Column("stage", sa.Text()), schema=op.get_context().version_table_schema)


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("waybill_runs", "stage", schema=op.get_context().version_table_schema)
