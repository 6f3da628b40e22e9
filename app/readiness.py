"""Readiness and Prometheus metrics of a process, the same for the API and the worker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog
from pydantic import BaseModel, Field
from sqlalchemy import text

from app.errors import Unavailable
from app.infra import metrics
from app.infra.db import advice_on, lacks_tables
from app.infra.metrics import Levels
from app.jobs.db import repository, schedule
from app.resources import Resources

CHECK_SECONDS = 3
CACHE_SECONDS = 1.0

READ_ONLY = text("SELECT current_setting('transaction_read_only')::boolean, (SELECT 1 FROM schedule LIMIT 1)")

log = structlog.get_logger()


class Check(BaseModel):
    """The state of one dependency."""

    ok: bool
    reason: str | None = Field(default=None, description="Why the dependency is not usable, for the operator.")


class Health(BaseModel):
    """The process is running."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether the process can do its work, with the state of each dependency."""

    status: Literal["ready", "degraded", "not_ready"] = Field(
        description="`degraded`: it works, more slowly or partly (without Redis, the sweep finds the jobs)."
    )
    checks: dict[str, Check]


class ReadinessCache:
    """Checks the dependencies at most once a second, however many probes ask."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._check: asyncio.Task[Readiness] | None = None
        self._stale_at = 0.0

    async def get(self) -> Readiness:
        loop = asyncio.get_running_loop()
        if self._check is None or (self._check.done() and loop.time() >= self._stale_at):
            self._check = asyncio.create_task(readiness_of(self._resources), name="readiness")
            self._check.add_done_callback(lambda _: self._age(loop.time()))
        # A probe that gives up must not end the check that others wait for.
        return await asyncio.shield(self._check)

    def _age(self, now: float) -> None:
        self._stale_at = now + CACHE_SECONDS


async def readiness_of(resources: Resources) -> Readiness:
    """Check all dependencies concurrently, each within a time limit."""

    async def postgres() -> None:
        async with resources.database.read() as conn:
            read_only = await conn.scalar(READ_ONLY)
            if read_only:
                await conn.invalidate()  # after a failover a new session may be writable
                raise Unavailable("the database is read-only")

    async def redis() -> None:
        await resources.redis.ping()

    async def storage() -> None:
        await resources.assets.check()

    names = ("postgres", "redis", "storage")
    results = await asyncio.gather(_check(postgres), _check(redis), _check(storage))
    checks = dict(zip(names, results, strict=True))
    if not checks["postgres"].ok:
        return Readiness(status="not_ready", checks=checks)
    return Readiness(status="ready" if all(check.ok for check in results) else "degraded", checks=checks)


async def scrape(resources: Resources, accept: str | None) -> tuple[bytes, str]:
    """The metrics of this process and the gauges read from the database: a body and its content type."""

    async def measure() -> Levels:
        async with resources.database.read() as conn:
            jobs = await repository.counts(conn)
            ages = await schedule.oldest_overdue(conn)
        return Levels(
            jobs={state.value: number for state, number in jobs.items()},
            queue_age={lane.value: seconds for lane, seconds in ages.items()},
        )

    return await metrics.scrape(accept, measure)


async def _check(probe: Callable[[], Awaitable[None]]) -> Check:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await probe()
    except TimeoutError:
        return Check(ok=False, reason=f"no reply within {CHECK_SECONDS} seconds")
    except Exception as error:  # noqa: BLE001  # any failure is reported as the reason
        log.warning("dependency not usable", probe=probe.__name__, error=repr(error))
        if lacks_tables(error):
            return Check(ok=False, reason="the tables do not exist; run filmgate migrate")
        if advice := advice_on(error):
            return Check(ok=False, reason=advice)
        # Filmgate's own errors have a public message; the text of a driver may contain addresses.
        return Check(ok=False, reason=getattr(error, "message", None) or type(error).__name__)
    return Check(ok=True)
