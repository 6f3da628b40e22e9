"""What every worker does once a minute, beside its lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.backoff import jittered
from app.resources import Resources

INTERVAL_SECONDS = 60
EXPIRE_BATCH = 100

Task = Callable[[], Awaitable[object]]

log = structlog.get_logger()


def tasks_of(resources: Resources) -> Sequence[Task]:
    """Delete expired assets and files, save measured render times, and delete rows past their retention."""

    async def expire_assets() -> None:
        while await resources.assets.expire(EXPIRE_BATCH) == EXPIRE_BATCH:
            pass

    async def expire_files() -> None:
        while await resources.files.expire(EXPIRE_BATCH) == EXPIRE_BATCH:
            pass

    return expire_assets, expire_files, resources.render_times.write, resources.retention.remove


async def run_periodically(task: Task) -> None:
    """Run a task about every :data:`INTERVAL_SECONDS`, until canceled. A failure is logged; the next run retries."""
    while True:
        try:
            await task()
        except Exception:
            log.exception("maintenance failed; it is retried", task=task.__name__)
        await asyncio.sleep(jittered(INTERVAL_SECONDS))
