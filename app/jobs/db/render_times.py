"""Measured durations of renders. For estimates only; nothing is decided by them."""

from collections import defaultdict
from datetime import datetime
from statistics import fmean

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.clock import Clock, utc_now
from app.infra.db import Database
from app.jobs.db.tables import render_times
from app.jobs.records import Submission

#: Weight of the newest renders in the moving average.
WEIGHT = 0.3
#: How long a process caches what it read.
FRESH_SECONDS = 30


class RenderTimes:
    """Collects durations in memory and writes them periodically. A crash loses at most one interval."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._known: dict[str, float] = {}
        self._read_at: datetime | None = None

    def note(self, submission: Submission) -> None:
        """Record that a render has just finished."""
        if submission.accepted_at is not None:
            took = (self._clock() - submission.accepted_at).total_seconds()
            self._seen[submission.model].append(max(0.0, took))

    async def write(self) -> None:
        """Write the collected durations into the moving averages."""
        seen, self._seen = self._seen, defaultdict(list)
        if not seen:
            return
        statement = insert(render_times).values(
            [{"model": model, "seconds": fmean(times)} for model, times in sorted(seen.items())]
        )
        mixed = render_times.c.seconds * (1 - WEIGHT) + statement.excluded.seconds * WEIGHT
        async with self._database.begin() as conn:
            await conn.execute(
                statement.on_conflict_do_update(index_elements=[render_times.c.model], set_={"seconds": mixed})
            )

    async def typical(self, model: str, default: float) -> float:
        """Seconds from a provider's acceptance to its finished render; ``default`` without a measurement."""
        now = self._clock()
        if self._read_at is None or (now - self._read_at).total_seconds() > FRESH_SECONDS:
            self._read_at = now
            async with self._database.read() as conn:
                rows = await conn.execute(select(render_times.c.model, render_times.c.seconds))
            self._known = dict(rows.all())
        return self._known.get(model, default)
