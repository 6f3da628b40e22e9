"""The trigger on ``files`` that keeps ``file_totals``. The migration 202611291340 holds the same text."""

from sqlalchemy import DDL, event

from app.files.tables import files

_STATEMENTS = (
    """
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
""",
    """
    CREATE TRIGGER files_are_totalled AFTER INSERT OR DELETE ON files
    FOR EACH ROW EXECUTE FUNCTION files_are_totalled()
    """,
)

for _statement in _STATEMENTS:
    event.listen(files, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
