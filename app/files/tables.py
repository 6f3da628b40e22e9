"""The tables of files that callers give."""

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
    Uuid,
    func,
    text,
)

from app.infra.db import metadata

# How much the files of an account have together, kept by a trigger: to add them up costs more with each file.
file_totals = Table(
    "file_totals",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    # The file whose picture this one shows as it was sent: not listed, and deleted with that.
    Column("derived_from", Uuid),
    Column("name", Text),
    Column("format", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("seconds", Float),
    Column("frame_rate", Float),
    Column("has_audio", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Null while the object is written: the row is there first, so that no object is ever without one.
    Column("stored_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("size_bytes > 0", name="size"),
    # The same bytes are one file of an account.
    Index(
        "ix_files_account_id_sha256",
        "account_id",
        "sha256",
        unique=True,
        postgresql_where=text("stored_at is not null"),
    ),
    Index("ix_files_account_id_id", "account_id", "id"),
    Index("ix_files_derived_from", "derived_from", postgresql_where=text("derived_from is not null")),
    Index("ix_files_expires_at", "expires_at"),
)
