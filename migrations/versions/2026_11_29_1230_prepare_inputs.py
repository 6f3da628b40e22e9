"""Add the state and the lane in which the inputs of a job are prepared, and the table of the files that jobs use.

Safe while serving: a check that allows more is added without a scan and validated without a lock against writes.
Processes of earlier versions neither make nor claim such jobs; they cannot show one, so replace all API processes
before callers send inputs.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611291230"
down_revision: str | None = "202611290940"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

STATES = (
    "'preparing', 'queued', 'submitting', 'submit_unknown', 'running', 'storing', 'succeeded', 'failed', 'canceled'"
)
CHECKS = (
    ("jobs", "ck_jobs_state", f"state in ({STATES})"),
    ("schedule", "ck_schedule_lane", "lane in ('prepare', 'submit', 'confirm', 'poll', 'store')"),
)


def upgrade() -> None:
    op.create_table(
        "file_uses",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_file_uses_job_id_jobs")),
        sa.PrimaryKeyConstraint("file_id", "job_id", name=op.f("pk_file_uses")),
    )
    op.create_index("ix_file_uses_job_id", "file_uses", ["job_id"])
    for table, name, check in CHECKS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({check}) NOT VALID")
    with op.get_context().autocommit_block():
        for table, name, _ in CHECKS:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
