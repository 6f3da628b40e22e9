"""Jobs, their schedule, the ledger of submissions, and idempotency keys.

The database itself enforces: one live submission per job; a remote id belongs to one submission; known states only.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db import metadata

Money = Numeric(20, 6)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("model", Text, nullable=False),
    Column("request", JSONB, nullable=False),  # what was ordered, normalised: see jobs.schemas.Ordered
    Column("adjustments", JSONB, nullable=False, server_default=text("'[]'")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("webhook_url", Text),
    Column("notice", Text),  # what the job is waiting for, in words for its owner
    Column("estimated_cost", Money),
    Column("progress", SmallInteger, nullable=False, server_default="0"),
    Column("cost", Money),
    Column("charge_certainty", Text, nullable=False, server_default="none"),
    Column("error", JSONB),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("cancel_outcome", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(
        "state in ('queued', 'submitting', 'submit_unknown', 'running', 'storing', 'succeeded', 'failed', 'canceled')",
        name="state",
    ),
    CheckConstraint("charge_certainty in ('none', 'possible', 'certain')", name="charge_certainty"),
    CheckConstraint(
        "(finished_at is not null) = (state in ('succeeded', 'failed', 'canceled'))", name="finished_when_final"
    ),
    Index("ix_jobs_account_id_id", "account_id", text("id desc")),
    Index("ix_jobs_live", "state", postgresql_where=text("finished_at is null")),
    Index("ix_jobs_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
)

# One narrow row per live job: this is the queue. Claimed in batches, so every byte of it is paid for on each claim.
schedule = Table(
    "schedule",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("lane", Text, nullable=False),
    Column("next_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("waits_for", Text),  # the connection whose next free slot this job wants
    CheckConstraint("lane in ('submit', 'confirm', 'poll', 'store')", name="lane"),
    Index("ix_schedule_lane_next_at", "lane", "next_at"),
    Index("ix_schedule_waits_for", "waits_for", "job_id", postgresql_where=text("waits_for is not null")),
    postgresql_with={"fillfactor": 70},
)

LIVE = "state in ('sending', 'unknown', 'accepted')"

submissions = Table(
    "submissions",
    metadata,
    Column("id", Uuid, primary_key=True),  # also our reference at the provider
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("connection", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("send_deadline", DateTime(timezone=True), nullable=False),
    Column("remote_id", Text),
    Column("results", JSONB(none_as_null=True)),  # set once the provider has finished
    Column("cost_limit", Money),
    Column("cost", Money),
    Column("charge_certainty", Text, nullable=False),
    Column("failure", JSONB),
    Column("detail", Text),  # for operators: the provider's or the network's own words
    Column("raw", JSONB(none_as_null=True)),  # the provider's last word, as it was
    Column("lookups", SmallInteger, nullable=False, server_default="0"),
    Column("missing_since", DateTime(timezone=True)),
    Column("polls", Integer, nullable=False, server_default="0"),
    Column("fetches", SmallInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("accepted_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint(
        "state in ('sending', 'unknown', 'accepted', 'done', 'rejected', 'absent', 'abandoned')", name="state"
    ),
    CheckConstraint("charge_certainty in ('none', 'possible', 'certain')", name="charge_certainty"),
    Index("uq_submissions_live", "job_id", unique=True, postgresql_where=text(LIVE)),
    Index(
        "uq_submissions_remote", "connection", "remote_id", unique=True, postgresql_where=text("remote_id is not null")
    ),
    Index("uq_submissions_number", "job_id", "number", unique=True),
    Index("ix_submissions_live_connection", "connection", postgresql_where=text(LIVE)),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("job_id", Uuid, nullable=False),  # written before the job, in the same transaction
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)
