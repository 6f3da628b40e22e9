"""Keep how much the files of an account have together, instead of adding them up for each upload; and what is derived.

Safe while serving: the trigger counts what any process writes. Uploads wait for a moment, while the index is built and
what is there is added up.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611291340"
down_revision: str | None = "202611291300"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FUNCTION = """
CREATE OR REPLACE FUNCTION files_are_totalled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO file_totals (account_id, bytes) VALUES (NEW.account_id, NEW.size_bytes)
        ON CONFLICT (account_id) DO UPDATE SET bytes = file_totals.bytes + excluded.bytes;
    ELSE
        UPDATE file_totals SET bytes = bytes - OLD.size_bytes WHERE account_id = OLD.account_id;
    END IF;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER files_are_totalled AFTER INSERT OR DELETE ON files
FOR EACH ROW EXECUTE FUNCTION files_are_totalled()
"""
FILL = "INSERT INTO file_totals (account_id, bytes) SELECT account_id, sum(size_bytes) FROM files GROUP BY account_id"


def upgrade() -> None:
    op.create_table(
        "file_totals",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_file_totals_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_file_totals")),
    )
    op.add_column("files", sa.Column("derived_from", sa.Uuid()))
    op.create_index(
        "ix_files_derived_from", "files", ["derived_from"], postgresql_where=sa.text("derived_from is not null")
    )
    op.execute("LOCK TABLE files IN SHARE ROW EXCLUSIVE MODE")
    op.execute(FUNCTION)
    op.execute(TRIGGER)
    op.execute(FILL)
