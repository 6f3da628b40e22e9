"""What is done all the time costs the same however long the past is: no plan reads what grows."""

import asyncio
from pathlib import Path

import pytest

from app.database_settings import DatabaseSettings
from app.embedded.servers import DATABASE, Postgres
from app.infra.db import Database
from tests.plans import workload
from tests.plans.auto_explain import ServerLog, explain_everything
from tests.plans.plan_rules import faults_of, indexes_of

#: The history of the gateway is made once.
pytestmark = pytest.mark.xdist_group("plans")

#: A day that does not end is a job that does not: then the test must.
PATIENCE_SECONDS = 600
#: What the day cannot be lived without: so that the test sees what it is there for.
NEEDED = {
    "uq_api_keys_digest",  # who is calling
    "pk_idempotency_keys",  # a repeated request
    "pk_jobs",
    "ix_jobs_account_id_id",  # lists
    "ix_jobs_failed",
    "ix_jobs_cancel_requested",
    "ix_jobs_live",  # figures
    "uq_submissions_live",
    "uq_submissions_number",  # the ledger, and what a job cost
    "uq_submissions_remote",
    "ix_submissions_connection_created_at",  # requests a minute, and who was served last
    "ix_schedule_lane_next_at",  # claims
    "ix_schedule_queue",  # whose turn it is
    "ix_watches_next_at",
    "ix_events_subject_id_seq",
    "ix_webhook_deliveries_due",
    "ix_webhook_deliveries_subject_id",
    "uq_webhook_attempts_delivery_id_number",
    "pk_assets",
    "uq_assets_job_id_kind",
    "ix_assets_expires_at",  # retention, here and below
    "ix_idempotency_keys_created_at",
    "pk_webhook_deliveries",
    "pk_events",
}


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
async def test_no_statement_reads_what_grows(
    old_postgres: Postgres, redis_url: str, sandbox_url: str, tmp_path: Path, mode: str
) -> None:
    database = Database.open(DatabaseSettings.model_validate({"url": old_postgres.url}), application="tests")
    await explain_everything(database, DATABASE, plan_cache_mode=mode)
    await database.close()
    log = ServerLog(old_postgres.log)
    settings = workload.settings_of(old_postgres.url, redis_url, sandbox_url, tmp_path)
    async with workload.opened(settings, sandbox_url) as gateway, asyncio.timeout(PATIENCE_SECONDS):
        await workload.live(gateway)
    explained = log.read()
    assert set().union(*map(indexes_of, explained)) >= NEEDED
    assert sorted({fault for one in explained for fault in faults_of(one)}) == []
