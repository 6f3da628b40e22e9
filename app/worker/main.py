"""The worker process: six lanes over Postgres, and arq as the bell that wakes them.

arq runs under supervision: one Redis error ends its poll loop, so it is restarted; meanwhile the lanes poll by their
timers. An arq task does no work: it only rings lanes (docs/architecture.md, "Lanes and claims").
"""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from arq.connections import ArqRedis
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import RedisError

from app.backoff import exponential
from app.infra import logs
from app.infra.ports import check_free
from app.infra.queue import QUEUE_NAME, RING, Lane, deserialize, open_redis, serialize
from app.resources import Resources, freeze_gc, warn_unused_credentials
from app.settings import Settings
from app.worker.health import HealthServer
from app.worker.lanes import LaneRunner
from app.worker.maintenance import run_periodically, tasks_of

LONGEST_RESTART_SECONDS = 5
CANCEL_SECONDS = 2

log = structlog.get_logger()


class LocalBell:
    """The bell inside a worker: rings its own lanes directly, without Redis."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, LaneRunner[Any]] = {}

    def ring(self, *lanes: Lane) -> None:
        for lane in lanes:
            self.lanes[lane].ring()


class Worker:
    """Runs the steps and the maintenance tasks of :class:`Resources` until it is stopped."""

    def __init__(self, resources: Resources, bell: LocalBell, settings: Settings) -> None:
        self._resources = resources
        self._settings = settings
        self._bell = bell
        self._stop = asyncio.Event()
        self._bell.lanes = {step.lane: LaneRunner(step, settings.worker.sweep_interval) for step in resources.steps}

    def stop(self) -> None:
        """Ask the worker to finish what is in progress and to end."""
        self._stop.set()

    async def run(self) -> None:
        """Work until :meth:`stop`; then finish or hand over every item within the grace period."""
        lanes = self._bell.lanes.values()
        background = [
            asyncio.create_task(self._listen(), name="bell"),
            *(asyncio.create_task(run_periodically(task), name="maintenance") for task in tasks_of(self._resources)),
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
        """Listen for rings; reconnect after every Redis error."""
        failures = 0
        while True:
            redis = open_redis(self._settings.redis)
            ringing = asyncio.create_task(self._arq(redis).async_run(), name="arq")
            try:
                await asyncio.wait({ringing})
            finally:
                # redis-py swallows a cancellation that arrives while its connection breaks.
                while not ringing.done():
                    ringing.cancel()
                    await asyncio.wait({ringing}, timeout=CANCEL_SECONDS)
                with suppress(RedisError, OSError):
                    await redis.aclose()
            if not ringing.cancelled():
                log.warning("Redis unavailable; falling back to polling", error=repr(ringing.exception()))
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
        SettingsError: the configuration names something that does not exist, the port is taken, or the spool cannot
            be used.
    """
    check_free("worker.port", settings.worker.host, settings.worker.port)
    logs.setup(settings, process="worker")
    warn_unused_credentials(settings)
    log.info("worker starting", name=settings.worker.name or f"{socket.gethostname()}-{os.getpid()}")
    freeze_gc()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))
