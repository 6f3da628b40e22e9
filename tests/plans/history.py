"""The past of a gateway: so many finished jobs with all that belongs to them, and so many live ones; in bulk.

One account has most of the jobs. The finished ones are spread over 300 days, the newest a minute old.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from app.infra.db import Database

DAYS = 300
ACCOUNTS = 20
#: The name of the account that has most of them: the one that a test's gateway makes its key for.
BUSIEST = "tests"
#: Accounts that have a key and no jobs.
QUIET = 2000
#: Of these columns no statistics would tell more than these do: how many of all jobs are what.
FAILED_EVERY, CANCELED_EVERY, TAGGED_EVERY, HOOKED_EVERY = 50, 1000, 10, 3
VARIED_EVERY, PICTURED_EVERY = 40, 4

_NUMBERS = "generate_series(1, cast(:finished AS int) + cast(:live AS int)) AS n"

# The deferred triggers, and the checks of references, are off while it is written: one by one they would take hours.
_PAST: tuple[str, ...] = (
    "SET session_replication_role = replica",
    "SET synchronous_commit = off",
    """
    CREATE FUNCTION id_at(at timestamptz, salt text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT cast(lpad(to_hex(cast(extract(epoch FROM at) * 1000 AS bigint)), 12, '0')
            || '7' || substr(md5(salt), 1, 3) || '8' || substr(md5(salt), 4, 15) AS uuid)
    $$
    """,
    f"""
    INSERT INTO accounts (id, name)
    SELECT id_at(now(), 'account' || n), CASE n WHEN 1 THEN '{BUSIEST}' ELSE 'account ' || n END
    FROM generate_series(1, {QUIET + ACCOUNTS}) AS n
    """,
    """
    INSERT INTO api_keys (id, account_id, name, digest, scopes)
    SELECT id, id, name, decode(repeat(md5(name), 2), 'hex'), '{jobs:read}' FROM accounts
    """,
    f"""
    CREATE TEMP TABLE past AS
    SELECT n, at, id_at(at, 'job' || n) AS job, id_at(at, 'submission' || n) AS submission,
        id_at(now(), 'account' || CASE WHEN n % 5 < 4 THEN 1 ELSE 2 + n / 5 % {ACCOUNTS - 1} END) AS account,
        (ARRAY['sandbox', 'sandbox-runway', 'sandbox-kling'])[1 + n % 3] AS upstream,
        (ARRAY['sandbox/video', 'runway/gen4.5', 'sandbox/short'])[1 + n % 3] AS model,
        CASE WHEN n > :finished THEN CASE WHEN n % 2 = 0 THEN 'queued' ELSE 'running' END
            WHEN n % {CANCELED_EVERY} = 0 THEN 'canceled' WHEN n % {FAILED_EVERY} = 1 THEN 'failed'
            ELSE 'succeeded' END AS state
    FROM (
        SELECT n, now() - interval '1 min'
            - interval '{DAYS} days' * (greatest(0, :finished - n) / cast(greatest(1, :finished) AS float)) AS at
        FROM {_NUMBERS}
    ) AS numbered
    """,
    f"""
    INSERT INTO jobs (id, account_id, parent_id, state, version, model, model_used, request, metadata, webhook_url,
        estimated_cost, cost, charge_certainty, progress, error, created_at, deadline_at, started_at, finished_at)
    SELECT job, account, CASE WHEN n % {VARIED_EVERY} = 0 THEN job END, state, 5, model, model,
        jsonb_build_object('prompt', 'video ' || n || repeat(' of a purple elephant on a beach ball', 6), 'seconds', 1,
            'width', 128, 'height', 96, 'seed', n, 'negative_prompt', NULL, 'audio', NULL, 'options', '{{}}'::jsonb),
        CASE WHEN n % {TAGGED_EVERY} = 0 THEN jsonb_build_object('order', n::text, 'shop', (n / 10 % 7)::text)
            ELSE '{{}}' END,
        CASE WHEN n % {HOOKED_EVERY} = 0 THEN 'https://shop' || n % 9 || '.example/videos' END, 0.1,
        CASE WHEN state = 'succeeded' THEN 0.1 END, CASE WHEN state = 'succeeded' THEN 'certain' ELSE 'none' END,
        CASE WHEN state = 'succeeded' THEN 100 ELSE 0 END,
        CASE WHEN state = 'failed' THEN jsonb_build_object(
            'code', 'provider_failed', 'message', 'It failed.', 'fault', 'provider', 'retryable', false) END,
        at, at + interval '1 hour', CASE WHEN state <> 'queued' THEN at END,
        CASE WHEN n <= :finished THEN at + interval '30 s' END
    FROM past ORDER BY n
    """,
    """
    INSERT INTO schedule (job_id, account_id, lane, queue, ready_at, next_at)
    SELECT job, account, CASE state WHEN 'queued' THEN 'submit' ELSE 'poll' END,
        CASE state WHEN 'queued' THEN model END,
        CASE state WHEN 'queued' THEN now() + interval '1 hour' END, now() + interval '2 hours'
    FROM past WHERE n > :finished ORDER BY n
    """,
    """
    INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state, body_hash,
        send_deadline, remote_id, results, estimated_cost, cost, charge_certainty, raw, polls, created_at, accepted_at,
        ended_at)
    SELECT submission, job, account, 1, upstream, model, 'video',
        CASE WHEN n > :finished THEN 'accepted' ELSE 'done' END, decode(repeat(md5(n::text), 2), 'hex'),
        at + interval '30 s', 'remote-' || n,
        CASE WHEN n <= :finished THEN '["https://videos.example/1.mp4"]'::jsonb END, 0.1, 0.1, 'certain',
        jsonb_build_object('id', n, 'status', 'completed', 'note', repeat('x', 100)), 5, at, at,
        CASE WHEN n <= :finished THEN at + interval '25 s' END
    FROM past WHERE state <> 'queued' ORDER BY n
    """,
    """
    INSERT INTO events (id, account_id, subject_id, type, version, data, created_at)
    SELECT id_at(at + make_interval(secs => version), 'event' || n || version), account, job,
        (ARRAY['job.queued', 'job.submitting', 'job.started', 'job.storing', 'job.succeeded'])[version], version,
        jsonb_build_object('id', job, 'status', 'running', 'note', repeat('x', 300)),
        at + make_interval(secs => version)
    FROM past, generate_series(1, CASE WHEN n > :finished THEN 2 ELSE 5 END) AS version ORDER BY n, version
    """,
    f"""
    INSERT INTO webhook_deliveries (id, account_id, subject_id, event_id, event_type, url, host, body, state, attempts,
        next_at, created_at, ended_at)
    SELECT id_at(at, 'delivery' || n), account, job, id_at(at + interval '5 s', 'event' || n || 5), 'job.succeeded',
        'https://shop' || n % 9 || '.example/videos', 'shop' || n % 9 || '.example', repeat('x', 500),
        CASE WHEN n > :finished - 600 THEN 'pending' ELSE 'delivered' END, 1, now() + interval '1 hour', at, at
    FROM past WHERE n <= :finished AND n % {HOOKED_EVERY} = 0 ORDER BY n
    """,
    """
    INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, status_code)
    SELECT id, 1, created_at, 20, 200 FROM webhook_deliveries ORDER BY id
    """,
    """
    INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height,
        codec, seconds, frame_rate, created_at, expires_at, deleted_at)
    SELECT id_at(at, kind || n), account, job, kind, job || '/' || kind, 'video/mp4', 1000,
        decode(repeat(md5(n::text), 2), 'hex'), 128, 96, 'h264', 1, 24, at, at + interval '30 days',
        CASE WHEN at < now() - interval '30 days' THEN at + interval '30 days' END
    FROM past, unnest(ARRAY['video', 'poster']) AS kind WHERE state = 'succeeded' ORDER BY n
    """,
    f"""
    INSERT INTO files (id, account_id, format, size_bytes, sha256, width, height, has_audio, created_at, stored_at,
        expires_at)
    SELECT id_at(at, 'file' || n), account, 'png', 1000, decode(repeat(md5(n::text), 2), 'hex'), 128, 96, false, at, at,
        now() + interval '30 days'
    FROM past WHERE n % {PICTURED_EVERY} = 0 ORDER BY n
    """,
    "INSERT INTO file_totals (account_id, bytes) SELECT account_id, sum(size_bytes) FROM files GROUP BY account_id",
    f"""
    INSERT INTO file_uses (file_id, job_id)
    SELECT id_at(at, 'file' || n), job FROM past WHERE n % {PICTURED_EVERY} = 0 ORDER BY n
    """,
    """
    INSERT INTO idempotency_keys (account_id, key, body_hash, job_id, created_at)
    SELECT account, 'order-' || md5(n::text), decode(repeat(md5(n::text), 2), 'hex'), job, at FROM past ORDER BY n
    """,
    """
    INSERT INTO watches (submission_id, job_id, next_at, until)
    SELECT submission, job, now() + interval '1 hour', now() + interval '1 day' FROM past
    WHERE n > :finished - 1000 AND state = 'failed'
    """,
    "DROP TABLE past",
    "SET session_replication_role = DEFAULT",
)


async def live_through(database: Database, *, finished: int, live: int) -> None:
    """Fill an empty database, and let Postgres look at what is in it."""
    fields: Mapping[str, Any] = {"finished": finished, "live": live}
    async with database.begin() as conn:
        for statement in _PAST:
            bound = {name: value for name, value in fields.items() if f":{name}" in statement}
            await conn.execute(text(statement), bound)
    async with database.read() as conn:
        await conn.execute(text("VACUUM ANALYZE"))
