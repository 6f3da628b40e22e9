"""Accept 'video' beside 'film' in assets.kind, and store what processes of 0.1 can read: the first of two steps.

Processes of 0.1 write and read 'film' only; newer ones write 'video' and read both. Until all processes are new, the
trigger stores 'film' for every writer. The second step, 202611281510, changes the word. Safe while serving: the
check is added without looking at rows, which all satisfy it, and validated under a lock that blocks no query.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "202611281500"
down_revision: str | None = "202611281100"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE assets DROP CONSTRAINT ck_assets_kind")
    op.execute("ALTER TABLE assets ADD CONSTRAINT ck_assets_kind CHECK (kind in ('film', 'video', 'poster')) NOT VALID")
    op.execute("ALTER TABLE assets VALIDATE CONSTRAINT ck_assets_kind")
    op.execute(
        """
        CREATE FUNCTION assets_name_videos() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.kind := 'film';
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER assets_name_videos BEFORE INSERT ON assets FOR EACH ROW
        WHEN (NEW.kind IN ('film', 'video')) EXECUTE FUNCTION assets_name_videos()
        """
    )
