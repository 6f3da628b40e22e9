"""The doctor may be asked at any time: none of its statements reads the whole past of a gateway."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.ids import earliest
from app.infra import migrate
from app.infra.db import Database
from app.jobs.db import audit
from app.webhooks import audit as webhooks
from tests.support.database import add_account

pytestmark = pytest.mark.xdist_group("statements")

GROWING = {"jobs", "submissions", "assets", "webhook_deliveries"}
#: Hold what is live or owed, and nothing else.
SMALL = {"ix_jobs_live", "uq_submissions_live", "ix_submissions_live_connection", "ix_webhook_deliveries_due"}
FIELDS: Mapping[str, Any] = {
    "since": earliest(datetime.now(UTC) - timedelta(days=7)),
    "seconds": 60.0,
    "models": ["sandbox/video"],
    "connections": ["sandbox"],
    "refs": [earliest(datetime.now(UTC))],
    "remote_ids": ["task-1"],
}
STATEMENTS = {
    f"{module.__name__}.{name}": statement
    for module in (audit, webhooks)
    for name, statement in vars(module).items()
    if isinstance(statement, TextClause)
}

# Twenty thousand videos, one every half hour; the last twenty are in the making.
PAST = (
    """
    CREATE FUNCTION id_of(moment timestamptz) RETURNS uuid LANGUAGE sql AS $$
        SELECT cast(lpad(to_hex(cast(extract(epoch FROM moment) * 1000 AS bigint)), 12, '0')
            || '7000' || '8000' || substr(md5(cast(moment AS text)), 1, 12) AS uuid)
    $$
    """,
    """
    INSERT INTO jobs (id, account_id, state, model, request, created_at, deadline_at, finished_at)
    SELECT id_of(at), :account, CASE WHEN number > 20 THEN 'succeeded' ELSE 'running' END, 'sandbox/video', '{}',
        at, at, CASE WHEN number > 20 THEN at END
    FROM (SELECT number, now() - number * interval '30 min' AS at FROM generate_series(20000, 1, -1) AS number) AS past
    """,
    """
    INSERT INTO schedule (job_id, account_id, lane, next_at)
    SELECT id, account_id, 'poll', now() FROM jobs WHERE finished_at IS NULL
    """,
    """
    INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state, body_hash,
        send_deadline, charge_certainty, created_at)
    SELECT id, id, account_id, 1, 'sandbox', model, model,
        CASE WHEN finished_at IS NULL THEN 'accepted' ELSE 'done' END, '', created_at, 'certain', created_at
    FROM jobs
    """,
    """
    INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height,
        codec, expires_at)
    SELECT id, account_id, id, 'video', 'video.mp4', 'video/mp4', 1, '', 1, 1, 'h264', created_at
    FROM jobs WHERE finished_at IS NOT NULL
    """,
    """
    INSERT INTO webhook_deliveries (id, account_id, subject_id, event_id, event_type, url, host, body, state, ended_at)
    SELECT id, account_id, id, id, 'job.succeeded', 'https://a.example/', 'a.example', '{}', 'delivered', created_at
    FROM jobs WHERE finished_at IS NOT NULL
    """,
    "ANALYZE",
)


@pytest.fixture(scope="module")
async def long_past(postgres: Postgres) -> AsyncIterator[Database]:
    """The database of a gateway that is a year old."""
    url = await postgres.create_database("long_past")
    await migrate.upgrade(url)
    database = Database.open(DatabaseSettings.model_validate({"url": url, "command_timeout": 60}), application="tests")
    async with database.begin() as conn:
        account = await add_account(conn)
        for statement in PAST:
            await conn.execute(text(statement), {"account": account} if ":account" in statement else {})
    yield database
    await database.close()


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A node of a plan, and all below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_reads_the_whole_past(long_past: Database, name: str) -> None:
    statement = STATEMENTS[name]
    fields = {bound: FIELDS[bound] for bound in statement.compile().params}
    async with long_past.read() as conn:
        (explained,) = (await conn.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), fields)).one()
    reads = [node for node in nodes(explained[0]["Plan"]) if node.get("Relation Name") in GROWING]
    assert [node for node in reads if "Index Cond" not in node and node.get("Index Name") not in SMALL] == []
