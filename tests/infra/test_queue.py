"""The doorbell: rings arrive, are gathered, and never hold anybody up."""

import asyncio
import signal

import pytest
import structlog

from app.infra.queue import QUEUE_NAME, Lane, RedisBell, open_redis
from app.settings import RedisSettings
from tests.support.redis import running_valkey


def settings(url: str, *, socket_timeout: float = 60) -> RedisSettings:
    return RedisSettings.model_validate({"url": url, "socket_timeout": socket_timeout})


async def test_rings_of_many_creates_are_gathered_into_few_tasks(redis_url: str) -> None:
    bell = RedisBell(open_redis(settings(redis_url)))
    for _ in range(1000):
        bell.ring(Lane.SUBMIT)
    bell.ring(Lane.DELIVER)
    await bell.close()
    redis = open_redis(settings(redis_url))
    (task,) = await redis.queued_jobs(queue_name=QUEUE_NAME)
    assert list(task.args) == ["deliver", "submit"]
    await redis.aclose()


@pytest.mark.servers
async def test_a_frozen_redis_blocks_no_request() -> None:
    async with running_valkey() as valkey:
        bell = RedisBell(open_redis(settings(valkey.url, socket_timeout=0.2)))
        bell.start()
        valkey.process.send(signal.SIGSTOP)
        try:
            with structlog.testing.capture_logs() as logs:
                bell.ring(Lane.SUBMIT)  # returns at once, whatever happens behind it
                while not logs:  # noqa: ASYNC110  # the log line is the only sign
                    await asyncio.sleep(0.01)
            assert "the sweep will find the work" in logs[0]["event"]
        finally:
            valkey.process.send(signal.SIGCONT)
        await bell.close()


async def test_payloads_are_json_and_never_pickle(redis_url: str) -> None:
    bell = RedisBell(open_redis(settings(redis_url)))
    bell.ring(Lane.STORE)
    await bell.close()
    redis = open_redis(settings(redis_url))
    (key,) = await redis.keys("arq:job:*")
    payload = await redis.get(key)
    assert payload is not None
    assert payload.startswith(b"{")
    await redis.aclose()
