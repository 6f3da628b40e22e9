"""The table of stored files."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db import metadata

assets = Table(
    "assets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("codec", Text, nullable=False),
    Column("seconds", Float),  # null for a poster
    Column("frame_rate", Float),
    Column("has_audio", Boolean, nullable=False, server_default=text("false")),
    # Differences from the request: [{"field", "requested", "actual"}].
    Column("deviations", JSONB, nullable=False, server_default=text("'[]'")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("kind in ('video', 'poster')", name="kind"),
    UniqueConstraint("job_id", "kind"),
    Index("ix_assets_expires_at", "expires_at", postgresql_where=text("deleted_at is null")),
)
