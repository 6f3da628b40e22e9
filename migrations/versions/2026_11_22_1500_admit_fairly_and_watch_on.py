"""Admit fairly, fall back to other models, and watch purchases on after their job has ended."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "202611221500"
down_revision: str | None = "202611221200"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MONEY = sa.Numeric(precision=20, scale=6)


def upgrade() -> None:
    _extend_jobs()
    _extend_submissions()
    _rebuild_schedule()
    _create_watches()
    _create_connections()
    _create_render_times()


def _extend_jobs() -> None:
    op.add_column(
        "jobs",
        sa.Column("fallbacks", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
    )
    op.add_column(
        "jobs", sa.Column("fallback_on_refusal", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("jobs", sa.Column("max_cost", MONEY, nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("model_used", sa.Text(), nullable=True))


def _extend_submissions() -> None:
    op.add_column("submissions", sa.Column("model", sa.Text(), nullable=True))
    op.execute("UPDATE submissions SET model = jobs.model FROM jobs WHERE jobs.id = submissions.job_id")
    op.alter_column("submissions", "model", nullable=False)
    op.add_column("submissions", sa.Column("hint", sa.Text(), nullable=True))
    op.add_column("submissions", sa.Column("estimated_cost", MONEY, nullable=True))
    op.add_column("submissions", sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index("ix_submissions_connection_created_at", "submissions", ["connection", "created_at"])


def _rebuild_schedule() -> None:
    op.drop_index("ix_schedule_waits_for", table_name="schedule")
    op.drop_column("schedule", "waits_for")
    op.alter_column("schedule", "next_at", server_default=None)
    op.add_column("schedule", sa.Column("account_id", sa.Uuid(), nullable=True))
    op.add_column("schedule", sa.Column("queue", sa.Text(), nullable=True))
    op.add_column("schedule", sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("schedule", sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("schedule", sa.Column("avoid", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("schedule", sa.Column("diverts", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute(
        """
        UPDATE schedule SET
            account_id = jobs.account_id,
            lane = CASE WHEN jobs.state = 'submitting' THEN 'confirm' ELSE lane END,
            queue = CASE WHEN jobs.state = 'queued' THEN jobs.model END,
            ready_at = CASE WHEN jobs.state = 'queued' THEN next_at END,
            next_at = CASE WHEN jobs.state = 'queued' THEN jobs.deadline_at ELSE next_at END
        FROM jobs WHERE jobs.id = schedule.job_id
        """
    )
    op.alter_column("schedule", "account_id", nullable=False)
    op.create_foreign_key("fk_schedule_account_id_accounts", "schedule", "accounts", ["account_id"], ["id"])
    op.create_check_constraint(
        op.f("ck_schedule_queued_in_a_line"), "schedule", "(queue is not null) = (lane = 'submit')"
    )
    op.create_index(
        "ix_schedule_queue",
        "schedule",
        ["queue", "account_id", sa.text("priority desc"), "job_id"],
        postgresql_where=sa.text("queue is not null"),
    )
    op.create_index(
        "ix_schedule_ready_at",
        "schedule",
        ["ready_at"],
        postgresql_where=sa.text("queue is not null and ready_at is not null"),
    )
    op.create_index(
        "ix_schedule_diverts", "schedule", ["queue"], postgresql_where=sa.text("queue is not null and diverts")
    )


def _create_watches() -> None:
    op.create_table(
        "watches",
        sa.Column("submission_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_watches_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submissions.id"], name=op.f("fk_watches_submission_id_submissions")
        ),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_watches")),
    )
    op.create_index("ix_watches_next_at", "watches", ["next_at"])


def _create_connections() -> None:
    op.create_table(
        "connections",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("closed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_connections")),
    )


def _create_render_times() -> None:
    op.create_table(
        "render_times",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_render_times")),
    )
