"""The bell: Redis notifications, sent with arq, that tell workers which lanes have work. The work is in Postgres.

A ring carries only names of lanes. A lost one delays work by at most a sweep interval, so ringing never waits, never
raises and never delays a request, even when Redis is frozen. Only this module and ``app/worker/`` use arq.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import structlog
from arq.connections import ArqRedis as Redis
from redis.exceptions import RedisError

from app.infra.metrics import RINGS
from app.settings import RedisSettings

QUEUE_NAME = "filmgate:doorbell"
RING = "ring"
#: Interval between two rings of one process: under load they are combined, an idle process rings at once. A ring costs
#: a millisecond of CPU, so rings take at most 4 % of a core.
GATHER_SECONDS = 0.025
#: An unread ring expires after this time: by then the sweep has found the work.
RING_TTL_SECONDS = 30

CLOSE_SECONDS = 1

__all__ = ["Bell", "Lane", "Redis", "RedisBell", "Step", "deserialize", "open_redis", "serialize"]

log = structlog.get_logger()


class Lane(StrEnum):
    """The kinds of work of a worker."""

    PREPARE = "prepare"
    SUBMIT = "submit"
    RESOLVE = "confirm"
    POLL = "poll"
    STORE = "store"
    RECONCILE = "watch"
    DELIVER = "deliver"


Item = TypeVar("Item")


class Step(Protocol[Item]):
    """One kind of work of a worker: the handler of a lane.

    Every method may raise: the lane logs the error and continues; the item is claimed again when its lease ends.
    """

    lane: Lane
    #: How much may be in progress at once, in the unit of :meth:`weight`.
    limit: int

    def claim(self, limit: int) -> AsyncIterator[Item]:
        """Claim due items, up to ``limit``. Each one is started before the next is claimed."""

    async def advance(self, item: Item) -> object:
        """Do the work of one item.

        Raises:
            ClaimLost: another worker has it; nothing is wrong.
        """

    async def next_due(self) -> float | None:
        """Seconds until the next item is due; None when there is none."""

    def weight(self, item: Item) -> int:
        """How much of the limit an item takes."""
        del item
        return 1


class Bell(Protocol):
    """Notifies workers of new work."""

    def ring(self, *lanes: Lane) -> None:
        """Notify workers that these lanes have work. Call it after the commit; returns at once."""


def serialize(value: dict[str, Any]) -> bytes:
    """arq's payloads as JSON: pickle would let anyone who reaches Redis run code here.

    A ring that comes after its payload has expired "fails" with an exception as its result: its text is kept, because
    arq would log two tracebacks about a value that has no JSON.
    """
    return json.dumps(value, default=str).encode()


def deserialize(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def open_redis(settings: RedisSettings) -> Redis:
    """A client that connects lazily and abandons a frozen server after the socket timeout."""
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


class RedisBell:
    """Rings through Redis, from a background task. Owns the client and closes it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: set[Lane] = set()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bell")

    def ring(self, *lanes: Lane) -> None:
        self._pending.update(lanes)
        self._wanted.set()

    async def close(self) -> None:
        """Send pending rings, for at most a second, and stop."""
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
            log.warning("Redis notification failed; the sweep will find the work", lanes=lanes, error=repr(error))
        else:
            RINGS.labels(outcome="rung").inc()
