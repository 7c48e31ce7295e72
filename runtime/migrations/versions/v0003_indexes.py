"""Adds indexes for the periodic statements, and drops two that they no longer use."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPEN = sa.text("state IN ('pending', 'sending')")
WAITING = sa.text("published_at IS NULL")
HAS_FILE = sa.text("object_key IS NOT NULL")


def upgrade() -> None:
    """Create the indexes; daemons of the previous version work with them."""
    op.drop_index("waybill_runs_next_attempt_at_idx", "waybill_runs")
    op.drop_index("waybill_notices_next_attempt_at_idx", "waybill_notices")
    op.create_index(
        "waybill_runs_file_idx", "waybill_runs", ["finished_at"], postgresql_where=HAS_FILE, sqlite_where=HAS_FILE
    )
    op.create_index(
        "waybill_outbox_waiting_idx", "waybill_outbox", ["id"], postgresql_where=WAITING, sqlite_where=WAITING
    )
    op.create_index(
        "waybill_notices_open_idx", "waybill_notices", ["next_attempt_at"], postgresql_where=OPEN, sqlite_where=OPEN
    )
    op.create_index("waybill_notices_created_at_idx", "waybill_notices", ["created_at"])


def downgrade() -> None:
    """Restore the indexes of the revision before."""
    op.drop_index("waybill_notices_created_at_idx", "waybill_notices")
    op.drop_index("waybill_notices_open_idx", "waybill_notices")
    op.drop_index("waybill_outbox_waiting_idx", "waybill_outbox")
    op.drop_index("waybill_runs_file_idx", "waybill_runs")
    op.create_index("waybill_notices_next_attempt_at_idx", "waybill_notices", ["next_attempt_at"])
    op.create_index("waybill_runs_next_attempt_at_idx", "waybill_runs", ["next_attempt_at"])
