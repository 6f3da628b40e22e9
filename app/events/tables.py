"""The event log."""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, Index, Integer, Table, Text, Uuid, func
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db import VACUUMED_IN_TIME, metadata

events = Table(
    "events",
    metadata,
    # The cursor. Events of one subject are appended under that subject's row lock, so they are in order.
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Unique("subject_id", "type", "version"),
    Index("ix_events_subject_id_seq", "subject_id", "seq"),
    postgresql_with=VACUUMED_IN_TIME,
)
