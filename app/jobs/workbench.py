"""What every step of the worker needs, opened once."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.db import Database
from app.jobs import schedule
from app.jobs.recorder import Recorder
from app.jobs.records import Claim
from app.providers.registry import Registry
from app.queue import Bell, Lane
from app.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Workbench:
    """Shared by the submitter, the resolver, the poller and the storer. ``lease`` is seconds a claim lasts."""

    database: Database
    registry: Registry
    recorder: Recorder
    bell: Bell
    settings: JobSettings
    lease: float

    async def claim(self, lane: Lane, limit: int) -> Sequence[Claim]:
        """Take up to ``limit`` due jobs of a lane."""
        async with self.database.begin() as connection:
            return await schedule.claim(connection, lane, limit, self.lease)
