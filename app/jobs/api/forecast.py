"""When a job will start and finish, as far as past renders tell: for its owner's patience, and for nothing else."""

from datetime import timedelta

from app.clock import Clock, utc_now
from app.jobs.db.render_times import RenderTimes
from app.jobs.db.schedule import Place
from app.jobs.records import NO_OUTLOOK, Job, Outlook
from app.jobs.states import State
from app.providers.registry import Registry


class Forecast:
    """Looks at the line and at what was learned."""

    def __init__(self, registry: Registry, times: RenderTimes, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._times = times
        self._clock = clock

    async def of(self, job: Job, place: Place | None) -> Outlook:
        """The outlook of a job that stands at a place in its line; nothing of one that has ended."""
        if job.final:
            return NO_OUTLOOK
        if job.state is State.QUEUED:
            return await self._of_waiting(place) if place else NO_OUTLOOK
        begun = job.started_at or self._clock()
        takes = await self._typical(job.model_used or job.model)
        return Outlook(finish_at=max(self._clock(), begun + takes))

    async def _of_waiting(self, place: Place) -> Outlook:
        slots = sum(map(self._registry.max_concurrent, self._registry.connections_of(place.queue)))
        if slots == 0:
            return NO_OUTLOOK
        takes = await self._typical(place.queue)
        start = self._clock() + takes * (place.ahead // slots)
        return Outlook(position=place.ahead + 1, start_at=start, finish_at=start + takes)

    async def _typical(self, model: str) -> timedelta:
        known = self._registry.catalog.get(model)
        default = known.facts.typical_seconds if known else 0
        return timedelta(seconds=await self._times.typical(model, default))
