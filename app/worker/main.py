"""The worker process: five lanes over Postgres, and arq as the doorbell that wakes them.

arq runs under our own supervision: one Redis error ends its poll loop, so it is started again, and meanwhile the
lanes go on by their timers. No arq task does any work: it rings a lane and is done (DESIGN §4).
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import uvloop
from arq.connections import ArqRedis
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import RedisError

from app.backoff import exponential, jittered
from app.infra import logs
from app.infra.metrics import WEBHOOK_ATTEMPTS
from app.infra.queue import QUEUE_NAME, RING, Lane, deserialize, open_redis, serialize
from app.jobs.db import schedule
from app.resources import Resources, settle, warn_of_strays
from app.settings import Settings
from app.worker.health import HealthServer
from app.worker.lanes import LaneRunner, Work, at_once

HOUSEKEEPING_SECONDS = 60
EXPIRE_BATCH = 100
LONGEST_RESTART_SECONDS = 5
CANCEL_SECONDS = 2

log = structlog.get_logger()


class LocalBell:
    """In a worker, a ring goes to its own lanes: no way through Redis."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, LaneRunner[Any]] = {}

    def ring(self, *lanes: Lane) -> None:
        for lane in lanes:
            self.lanes[lane].ring()


class Worker:
    """Opens nothing itself: runs what :class:`Resources` holds until it is told to stop."""

    def __init__(self, resources: Resources, bell: LocalBell, settings: Settings) -> None:
        self._resources = resources
        self._settings = settings
        self._bell = bell
        self._stop = asyncio.Event()
        self._bell.lanes = {lane: LaneRunner(work, settings.worker.sweep_interval) for lane, work in self._works()}

    def _works(self) -> list[tuple[Lane, Work[Any]]]:
        limits, steps = self._settings.worker, self._resources.steps
        works: list[tuple[Lane, Work[Any]]] = []
        submitter, poller, watcher, deliverer = steps.submitter, steps.poller, steps.watcher, self._resources.deliverer
        works.append(
            (Lane.SUBMIT, Work("submit", submitter.claim, submitter.advance, self._next_in, limits.submissions))
        )
        for step, limit in ((steps.resolver, limits.submissions), (steps.storer, limits.stores)):
            due = partial(self._next_due, step.lane)
            works.append((step.lane, Work(step.lane.value, at_once(step.claim), step.advance, due, limit)))
        due, claim = partial(self._next_due, poller.lane), at_once(poller.claim)
        works.append((poller.lane, Work("poll", claim, poller.advance, due, limits.polls, weigh=len)))
        watch, deliver = at_once(watcher.claim), at_once(deliverer.claim)
        works.append((Lane.WATCH, Work("watch", watch, watcher.advance, watcher.next_due, limits.stores)))
        works.append((Lane.DELIVER, Work("deliver", deliver, self._deliver, deliverer.next_due, limits.deliveries)))
        return works

    async def _next_due(self, lane: Lane) -> float | None:
        async with self._resources.database.read() as connection:
            return await schedule.next_due(connection, lane)

    async def _next_in(self) -> float | None:
        """Jobs in line have two clocks: their deadline, and when they may be bought."""
        due = (await self._next_due(Lane.SUBMIT), await self._resources.steps.submitter.next_due())
        return min((seconds for seconds in due if seconds is not None), default=None)

    async def _deliver(self, due: Any) -> None:
        outcome = await self._resources.deliverer.attempt(due)
        WEBHOOK_ATTEMPTS.labels(outcome=outcome.value).inc()

    def stop(self) -> None:
        """Ask the worker to finish what it has begun and to end."""
        self._stop.set()

    async def run(self) -> None:
        """Work until :meth:`stop`; then finish or hand over every step within the grace period."""
        lanes = self._bell.lanes.values()
        chores = (self._expire, self._resources.times.write, self._resources.retention.remove)
        background = [
            asyncio.create_task(self._listen(), name="doorbell"),
            *(asyncio.create_task(self._keep_house(chore), name="housekeeping") for chore in chores),
        ]
        running = [asyncio.create_task(lane.run()) for lane in lanes]
        try:
            await self._stop.wait()
            log.info("worker stopping")
            for lane in lanes:
                lane.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.worker.shutdown_grace):
                    # A lane that is just claiming still starts what it claimed: drain only when all have stopped.
                    await asyncio.gather(*running)
                    await asyncio.gather(*(lane.drain() for lane in lanes))
        finally:
            for lane in lanes:
                lane.abandon()
            for task in (*background, *running):
                task.cancel()
            await asyncio.gather(*background, *running, *(lane.drain() for lane in lanes), return_exceptions=True)
        log.info("worker stopped")

    async def _listen(self) -> None:
        """Answer the doorbell, whatever happens to Redis."""
        failures = 0
        while True:
            redis = open_redis(self._settings.redis)
            ringing = asyncio.create_task(self._arq(redis).async_run(), name="arq")
            try:
                await asyncio.wait({ringing})
            finally:
                # One cancellation may be lost in it: a redis connection that breaks just then swallows it.
                while not ringing.done():
                    ringing.cancel()
                    await asyncio.wait({ringing}, timeout=CANCEL_SECONDS)
                with suppress(RedisError, OSError):
                    await redis.aclose()
            if not ringing.cancelled():
                log.warning("doorbell away; the lanes go on by their timers", error=repr(ringing.exception()))
            failures += 1
            await asyncio.sleep(exponential(min(failures, 4), first=0.5, longest=LONGEST_RESTART_SECONDS))

    def _arq(self, redis: ArqRedis) -> ArqWorker:
        async def ring(ctx: dict[Any, Any], *lanes: str, **options: Any) -> None:
            del ctx, options
            self._bell.ring(*map(Lane, lanes))

        return ArqWorker(
            [func(ring, name=RING, keep_result=0, max_tries=1, timeout=5)],
            queue_name=QUEUE_NAME,
            redis_pool=redis,
            handle_signals=False,
            keep_result=0,
            job_timeout=5,
            max_jobs=100,
            poll_delay=self._settings.redis.poll_delay,
            job_serializer=serialize,
            job_deserializer=deserialize,
            log_results=False,
        )

    async def _keep_house(self, chore: Callable[[], Awaitable[object]]) -> None:
        """What has to be done now and then, by any worker."""
        while True:
            try:
                await chore()
            except Exception:
                log.exception("housekeeping failed; it is tried again", chore=chore.__name__)
            await asyncio.sleep(jittered(HOUSEKEEPING_SECONDS))

    async def _expire(self) -> None:
        while await self._resources.assets.expire(EXPIRE_BATCH) == EXPIRE_BATCH:
            pass


async def run(settings: Settings) -> None:
    """One worker process, until SIGTERM or SIGINT."""
    bell = LocalBell()
    async with Resources.open(settings, bell, process="worker") as resources:
        worker = Worker(resources, bell, settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await asyncio.to_thread(resources.assets.prepare)
        server = HealthServer(resources, settings)
        serving = asyncio.create_task(server.serve(), name="health")
        try:
            await worker.run()
        finally:
            server.should_exit = True
            await serving


def serve(settings: Settings) -> None:
    """Run a worker process; returns when it was told to stop.

    Raises:
        SettingsError: the configuration names something that does not exist, or the spool cannot be used.
    """
    logs.setup(settings, process="worker")
    warn_of_strays(settings)
    log.info("worker starting", name=settings.worker.name or f"{socket.gethostname()}-{os.getpid()}")
    settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))
