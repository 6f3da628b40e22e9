"""Estimates when a job will start and finish, from past renders. For display only; nothing is decided by them."""

from datetime import timedelta

from app.clock import Clock, utc_now
from app.jobs.db.render_times import RenderTimes
from app.jobs.db.schedule import QueuePosition
from app.jobs.records import NO_ESTIMATE, Estimate, Job
from app.jobs.states import State
from app.providers.registry import Registry


class Forecast:
    """Estimates from the queue position and the measured render times."""

    def __init__(self, registry: Registry, times: RenderTimes, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._times = times
        self._clock = clock

    async def of(self, job: Job, position: QueuePosition | None) -> Estimate:
        """The estimate for a job, given its queue position if it waits; empty for one that has ended."""
        if job.final:
            return NO_ESTIMATE
        if job.state is State.QUEUED:
            return await self._of_waiting(position) if position else NO_ESTIMATE
        started = job.started_at or self._clock()
        duration = await self._typical(job.model_used or job.model)
        return Estimate(finish_at=max(self._clock(), started + duration))

    async def _of_waiting(self, position: QueuePosition) -> Estimate:
        slots = sum(map(self._registry.max_concurrent, self._registry.connections_of(position.queue)))
        if slots == 0:
            return NO_ESTIMATE
        duration = await self._typical(position.queue)
        start = self._clock() + duration * (position.ahead // slots)
        return Estimate(position=position.ahead + 1, start_at=start, finish_at=start + duration)

    async def _typical(self, model: str) -> timedelta:
        known = self._registry.catalog.get(model)
        default = known.facts.typical_seconds if known else 0
        return timedelta(seconds=await self._times.typical(model, default))
