"""Index the schedule by account, to count an account's live jobs: `jobs.max_live_per_account`.

Safe while serving: the index is built without a lock on writes. A build that was interrupted is begun anew.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "202611281840"
down_revision: str | None = "202611281510"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAME = "ix_schedule_account_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "schedule", postgresql_concurrently=True, if_exists=True)
        op.create_index(NAME, "schedule", ["account_id"], postgresql_concurrently=True)
