"""The trigger on ``assets`` that stores ``kind`` as 'video' when a process of version 0.1 writes 'film'.

To be removed in the release after 0.2. The migrations 202611281500 and 202611281510 hold the same text.
"""

from sqlalchemy import DDL, event

from app.assets.tables import assets

_STATEMENTS = (
    """
CREATE OR REPLACE FUNCTION assets_name_videos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.kind := 'video';
    RETURN NEW;
END $$
""",
    """
    CREATE TRIGGER assets_name_videos BEFORE INSERT ON assets FOR EACH ROW
    WHEN (NEW.kind IN ('film', 'video')) EXECUTE FUNCTION assets_name_videos()
    """,
)

for _statement in _STATEMENTS:
    event.listen(assets, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
