"""Call a video 'video' in assets.kind for every writer: the second of two steps.

Run it when no process of 0.1 is left: those cannot read the new word (what they would still write is stored as
'video', so nothing is lost). Safe while serving: rows are rewritten in batches, each a transaction which
holds few row locks for a moment; the check is narrowed at the end.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611281510"
down_revision: str | None = "202611281500"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BATCH = 5_000

# While rows are rewritten, a job's video keeps the word that its row has now: one row for each job and kind. The row
# lock makes an insert wait for the batch that is just rewriting that row.
DURING = """
CREATE OR REPLACE FUNCTION assets_name_videos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM assets WHERE job_id = NEW.job_id AND kind = 'film' FOR UPDATE;
    NEW.kind := CASE WHEN FOUND THEN 'film' ELSE 'video' END;
    RETURN NEW;
END $$
"""
AFTER = """
CREATE OR REPLACE FUNCTION assets_name_videos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.kind := 'video';
    RETURN NEW;
END $$
"""
REWRITE = """
WITH batch AS (SELECT id FROM assets WHERE id > :after AND kind = 'film' ORDER BY id LIMIT :limit FOR UPDATE),
    rewritten AS (UPDATE assets SET kind = 'video' FROM batch WHERE assets.id = batch.id)
SELECT max(id::text)::uuid FROM batch
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(DURING)
        conn = op.get_bind()
        after = "00000000-0000-0000-0000-000000000000"
        while after is not None:
            after = conn.scalar(sa.text(REWRITE), {"after": after, "limit": BATCH})
    # What a transaction that began before the trigger changed has written since: the lock waits for those.
    op.execute("LOCK TABLE assets IN SHARE ROW EXCLUSIVE MODE")
    op.execute("UPDATE assets SET kind = 'video' WHERE kind = 'film'")
    op.execute(AFTER)
    op.execute("ALTER TABLE assets DROP CONSTRAINT ck_assets_kind")
    op.execute("ALTER TABLE assets ADD CONSTRAINT ck_assets_kind CHECK (kind in ('video', 'poster')) NOT VALID")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE assets VALIDATE CONSTRAINT ck_assets_kind")
