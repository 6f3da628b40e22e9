"""The tables of webhook secrets, deliveries and attempts."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
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

from app.infra.db import VACUUMED_IN_TIME, metadata

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # encrypted; see app/infra/encryption.py
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),  # the `webhook-id`: the same on every attempt
    Column("event_type", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),  # of the URL, with its port: concurrency is limited per host
    Column("body", Text, nullable=False),  # signed and sent unchanged
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state in ('pending', 'delivered', 'failed')", name="state"),
    UniqueConstraint("event_id", "url"),
    Index("ix_webhook_deliveries_due", "next_at", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_deliveries_subject_id", "subject_id"),
    postgresql_with=VACUUMED_IN_TIME,
)

attempts = Table(
    "webhook_attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("delivery_id", ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),  # why there was no response
    Column("reply", Text),  # the beginning of the body of an unsuccessful response
    UniqueConstraint("delivery_id", "number"),
)
