"""Add the table of files that callers give.

Safe while serving: nothing else is touched, and processes of earlier versions do not know the table.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611290940"
down_revision: str | None = "202611281840"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("frame_rate", sa.Float()),
        sa.Column("has_audio", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_files_size")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_files_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index(
        "ix_files_account_id_sha256",
        "files",
        ["account_id", "sha256"],
        unique=True,
        postgresql_where=sa.text("stored_at is not null"),
    )
    op.create_index("ix_files_account_id_id", "files", ["account_id", "id"])
    op.create_index("ix_files_expires_at", "files", ["expires_at"])
