"""Keep the tables in use small: room for updates in place, vacuum in time, and no index on what changes often.

Measured with real jobs (docs/scaling.md): with these, 6 of 10 updates of a job and of a purchase touch no index.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611221730"
down_revision: str | None = "202611221510"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

IN_TIME = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"
# Every row changes every few seconds: it is vacuumed by number, at full speed, and never cut, which would lock it.
ALL_THE_TIME = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, "
    "vacuum_truncate = off"
)


def upgrade() -> None:
    for table in ("jobs", "submissions"):
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 70, {IN_TIME})")
    for table in ("events", "webhook_deliveries", "idempotency_keys"):
        op.execute(f"ALTER TABLE {table} SET ({IN_TIME})")
    for table in ("schedule", "watches"):
        op.execute(f"ALTER TABLE {table} SET ({ALL_THE_TIME})")
    _index_jobs()
    op.create_index("ix_watches_job_id", "watches", ["job_id"])
    # Nothing looks for an event by its id, and every event paid for the index.
    op.drop_constraint("uq_events_id", "events", type_="unique")


def _index_jobs() -> None:
    # Not by state: what changes with every move would keep the row from being changed in place.
    op.drop_index("ix_jobs_live", table_name="jobs")
    op.create_index("ix_jobs_live", "jobs", ["id"], postgresql_where=sa.text("finished_at is null"))
    # Both in one direction, so that a range of the pair is a range of the index.
    op.drop_index("ix_jobs_account_id_id", table_name="jobs")
    op.create_index("ix_jobs_account_id_id", "jobs", ["account_id", "id"])
    # What few jobs have, for lists of them.
    op.create_index("ix_jobs_failed", "jobs", ["account_id", "id"], postgresql_where=sa.text("error is not null"))
    op.create_index(
        "ix_jobs_cancel_requested",
        "jobs",
        ["account_id", "id"],
        postgresql_where=sa.text("cancel_requested_at is not null"),
    )
