"""Tables of jobs, their schedule, the ledger of submissions, reconciliations, connections and idempotency keys.

Constraints enforce: one live submission per job; a remote id belongs to one submission; only known states. Triggers
(``triggers.py``) enforce: an ended job stays ended, and a job has a schedule row exactly while it is live.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
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

from app.infra.db import ALL_THE_TIME, VACUUMED_IN_TIME, metadata

Money = Numeric(20, 6)
#: For rows that change a few times: most updates fit into the same page (HOT) and touch no index.
WITH_ROOM = {"fillfactor": 70, **VACUUMED_IN_TIME}

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("model", Text, nullable=False),
    Column("request", JSONB, nullable=False),  # the normalised request: see JobSpec.stored
    Column("adjustments", JSONB, nullable=False, server_default=text("'[]'")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column(
        "fallbacks", JSONB, nullable=False, server_default=text("'[]'")
    ),  # specs of the other models: see JobSpec.stored
    Column("fallback_on_refusal", Boolean, nullable=False, server_default=text("false")),
    Column("max_cost", Money),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("model_used", Text),  # of the latest submission
    Column("parent_id", Uuid),  # the job that this one varies; no foreign key: it may be deleted before
    Column("webhook_url", Text),
    Column("notice", Text),  # what the job is waiting for, for its owner
    Column("estimated_cost", Money),
    Column("progress", SmallInteger, nullable=False, server_default="0"),
    Column("cost", Money),
    Column("charge_certainty", Text, nullable=False, server_default="none"),
    Column("error", JSONB(none_as_null=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("cancel_outcome", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(
        "state in ('preparing', 'queued', 'submitting', 'submit_unknown', 'running', 'storing', 'succeeded', 'failed', "
        "'canceled')",
        name="state",
    ),
    CheckConstraint("charge_certainty in ('none', 'possible', 'certain')", name="charge_certainty"),
    CheckConstraint(
        "(finished_at is not null) = (state in ('succeeded', 'failed', 'canceled'))", name="finished_when_final"
    ),
    # No index on columns that change with every transition (state, version): most updates touch no index.
    Index("ix_jobs_account_id_id", "account_id", "id"),
    Index("ix_jobs_live", "id", postgresql_where=text("finished_at is null")),
    Index("ix_jobs_failed", "account_id", "id", postgresql_where=text("error is not null")),
    Index("ix_jobs_cancel_requested", "account_id", "id", postgresql_where=text("cancel_requested_at is not null")),
    Index("ix_jobs_parent_id", "account_id", "parent_id", "id", postgresql_where=text("parent_id is not null")),
    Index("ix_jobs_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    postgresql_with=WITH_ROOM,
)

# One narrow row per live job; claims read and write it in batches, so keep it small.
#
# A queued job waits in the line of a model (``queue``); it may be submitted from ``ready_at`` on (null: at once), but
# not to the connections in ``avoid``; ``next_at`` is its deadline. In every other lane ``next_at`` is when the job is
# due or, while it is claimed, when the lease ends.
schedule = Table(
    "schedule",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("lane", Text, nullable=False),
    Column("next_at", DateTime(timezone=True), nullable=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("queue", Text),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("ready_at", DateTime(timezone=True)),
    Column("avoid", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("diverts", Boolean, nullable=False, server_default=text("false")),  # may have another route
    CheckConstraint("lane in ('prepare', 'submit', 'confirm', 'poll', 'store')", name="lane"),
    CheckConstraint("(queue is not null) = (lane = 'submit')", name="queued_in_a_line"),
    Index("ix_schedule_account_id", "account_id"),
    Index("ix_schedule_lane_next_at", "lane", "next_at"),
    Index(
        "ix_schedule_queue",
        "queue",
        "account_id",
        text("priority desc"),
        "job_id",
        postgresql_where=text("queue is not null"),
    ),
    Index("ix_schedule_ready_at", "ready_at", postgresql_where=text("queue is not null and ready_at is not null")),
    Index("ix_schedule_diverts", "queue", postgresql_where=text("queue is not null and diverts")),
    postgresql_with={"fillfactor": 70, **ALL_THE_TIME},
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
    Column("model", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("order_hash", LargeBinary),  # of the request without reference and encoding; null in old rows
    Column("send_deadline", DateTime(timezone=True), nullable=False),
    Column("remote_id", Text),
    # A remote id that a callback named; the provider has not confirmed it yet.
    Column("hint", Text, key="callback_remote_id"),
    Column("results", JSONB(none_as_null=True)),  # result URLs; set once the provider has finished
    Column("estimated_cost", Money),  # by the catalogue
    Column("cost_limit", Money),
    Column("cost", Money),
    Column("charge_certainty", Text, nullable=False),
    Column("late", Boolean, nullable=False, server_default=text("false")),  # the result arrived after the job had ended
    Column("failure", JSONB),
    Column("detail", Text),  # for operators: the error text of the provider or the network
    Column("raw", JSONB(none_as_null=True)),  # the provider's last reply, without secrets and control characters
    Column("lookups", SmallInteger, nullable=False, server_default="0"),
    Column("missing_since", DateTime(timezone=True)),
    Column("polls", Integer, nullable=False, server_default="0"),  # inconclusive look-ups
    Column("fetches", SmallInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("accepted_at", DateTime(timezone=True)),  # when the provider reported acceptance, even without a usable id
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
    Index("ix_submissions_connection_created_at", "connection", "created_at"),
    postgresql_with=WITH_ROOM,
)

# The files that a job uses: they are not deleted before it has ended. No foreign key to them: the job may outlive them.
file_uses = Table(
    "file_uses",
    metadata,
    Column("file_id", Uuid, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Index("ix_file_uses_job_id", "job_id"),  # read when a job is deleted
)

# Submissions to reconcile: their job has ended, and their final result may still become known.
watches = Table(
    "watches",
    metadata,
    Column("submission_id", ForeignKey("submissions.id"), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("next_at", DateTime(timezone=True), nullable=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("until", DateTime(timezone=True), nullable=False),
    Index("ix_watches_next_at", "next_at"),
    Index("ix_watches_job_id", "job_id"),  # read when a job is deleted
    postgresql_with=ALL_THE_TIME,
)

# The health of a connection. The row lock is the right to assign its slots.
connections = Table(
    "connections",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("closed_until", DateTime(timezone=True)),  # accepts no jobs before
    Column("trouble", Text),  # for operators: the last failure
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Measured durations of renders, for estimates only.
render_times = Table(
    "render_times",
    metadata,
    Column("model", Text, primary_key=True),
    Column("seconds", Double, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("job_id", Uuid, nullable=False),  # written before the job, in the same transaction
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
    postgresql_with=VACUUMED_IN_TIME,
)
