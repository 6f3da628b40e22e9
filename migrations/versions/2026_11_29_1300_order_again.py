"""Keep which job another one varies: `POST /v1/jobs/{id}/again`.

Safe while serving: a column without a default is added at once, and the index is built without a lock on writes. A
build that was interrupted is begun anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611291300"
down_revision: str | None = "202611291230"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAME = "ix_jobs_parent_id"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent_id", sa.Uuid()), if_not_exists=True)
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "jobs", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            NAME,
            "jobs",
            ["account_id", "parent_id", "id"],
            postgresql_concurrently=True,
            postgresql_where=sa.text("parent_id is not null"),
        )
