"""The doorbell: arq tells workers that there is something to do. Postgres knows what.

A ring carries the names of lanes and nothing else. Losing one costs at most a sweep interval, so ringing never waits,
never fails and never holds up a request: not even when Redis is frozen. Only this file and ``worker.py`` know arq.
"""

import asyncio
import json
from contextlib import suppress
from enum import StrEnum
from typing import Any, Protocol

import structlog
from arq.connections import ArqRedis as Redis
from redis.exceptions import RedisError

from app.infra.metrics import RINGS
from app.settings import RedisSettings

QUEUE_NAME = "filmgate:doorbell"
RING = "ring"
#: Between two rings of one process: under load they are gathered, an idle one goes out at once. A ring costs a
#: millisecond of CPU, so these take at most a twenty-fifth of a core.
GATHER_SECONDS = 0.025
#: A ring that nobody heard for so long is of no use: the sweep has found the work.
RING_TTL_SECONDS = 30

CLOSE_SECONDS = 1

__all__ = ["Bell", "Doorbell", "Lane", "Redis", "deserialize", "open_redis", "serialize"]

log = structlog.get_logger()


class Lane(StrEnum):
    """The kinds of work a worker does."""

    SUBMIT = "submit"
    CONFIRM = "confirm"
    POLL = "poll"
    STORE = "store"
    WATCH = "watch"
    DELIVER = "deliver"


class Bell(Protocol):
    """Something that can be rung."""

    def ring(self, *lanes: Lane) -> None:
        """Say, after the commit, that these lanes have work. Returns at once."""


def serialize(value: dict[str, Any]) -> bytes:
    """arq's payloads as JSON: pickle would let anyone who reaches Redis run code here."""
    return json.dumps(value).encode()


def deserialize(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def open_redis(settings: RedisSettings) -> Redis:
    """A client that connects lazily and gives up on a frozen server after the socket time-out."""
    redis: Redis = Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.socket_timeout,
        socket_connect_timeout=settings.socket_timeout,
        health_check_interval=30,
    )
    redis.job_serializer = serialize
    redis.job_deserializer = deserialize
    redis.default_queue_name = QUEUE_NAME
    return redis


class Doorbell:
    """Rings through Redis, from a task of its own. Closes the client that it was given."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: set[Lane] = set()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="doorbell")

    def ring(self, *lanes: Lane) -> None:
        self._pending.update(lanes)
        self._wanted.set()

    async def close(self) -> None:
        """Send what is pending, if that is quick, and stop."""
        self._closing = True
        self._wanted.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    if self._task is not None:
                        await self._task
                    await self._flush()
        finally:
            await self._redis.aclose()

    async def _run(self) -> None:
        while not self._closing:
            await self._wanted.wait()
            self._wanted.clear()
            await self._flush()
            await asyncio.sleep(GATHER_SECONDS)

    async def _flush(self) -> None:
        lanes, self._pending = sorted(self._pending), set()
        if not lanes:
            return
        try:
            await self._redis.enqueue_job(RING, *lanes, _expires=RING_TTL_SECONDS)
        except (RedisError, OSError) as error:
            RINGS.labels(outcome="failed").inc()
            log.warning("doorbell not rung; the sweep will find the work", lanes=lanes, error=repr(error))
        else:
            RINGS.labels(outcome="rung").inc()
