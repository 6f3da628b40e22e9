"""What follows a "no": the job's next way, or its end."""

from collections.abc import Collection, Mapping
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.backoff import exponential
from app.ids import Prefix, encode
from app.jobs import failover
from app.jobs.db import connections, repository, submissions
from app.jobs.engine.context import Workbench
from app.jobs.records import Job, Submission
from app.jobs.states import State

FIRST_RETRY_SECONDS = 1
LONGEST_RETRY_SECONDS = 60

log = structlog.get_logger()


class Turns:
    """Writes in the caller's transaction, which holds the job's row lock and has ended the submission."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def go_on(
        self,
        connection: AsyncConnection,
        job: Job,
        *,
        from_: Collection[State],
        fence: int | None,
        error: Mapping[str, Any],
        notice: str,
        at_least: float = 0,
        **values: Any,
    ) -> None:
        """Queue the job for its next way; where there is none, it failed with ``error``.

        ``at_least`` is for how many seconds the way that said no wants to be left alone. ``values`` are of a failure.
        """
        past = await submissions.past_of(connection, job.id)
        closed = await connections.closed(connection)
        turn = failover.next_turn(job, past, self._bench.registry.connections_of, closed)
        if not {State.RUNNING, State.STORING}.isdisjoint(from_) and await repository.now(connection) >= job.deadline_at:
            turn = None  # a render that failed is the reason to tell, and not that there was no time for another one
        if job.cancel_requested_at is None and turn is None:
            await self._bench.recorder.move(
                connection, job.id, State.FAILED, from_=from_, fence=fence, error=error, **values
            )
            return
        turn = turn or failover.Turn(job.model)
        pause = self._pause(past, turn, at_least)
        await self._bench.recorder.move(
            connection,
            job.id,
            State.QUEUED,
            from_=from_,
            fence=fence,
            next_in=pause,
            turn=turn,
            notice=notice,
            progress=0,
        )
        if job.cancel_requested_at is not None:
            await self._bench.recorder.move(connection, job.id, State.CANCELED, from_=(State.QUEUED,), fence=None)
        log.info("job goes on", job=encode(Prefix.JOB, job.id), model=turn.model, avoid=turn.avoid, pause=pause)

    def _pause(self, past: list[Submission], turn: failover.Turn, at_least: float) -> float:
        """Seconds until the next purchase: none on a way that has not said no yet.

        ``at_least`` counts where the job can only go back to the connection that asked for it.
        """
        turned_away = [one for one in past if failover.turned_away(one)]
        wanted = [name for name in self._bench.registry.connections_of(turn.model) if name not in turn.avoid]
        here = [one for one in turned_away if one.model == turn.model and one.connection in wanted]
        if not here:
            return 0
        pause = exponential(len(turned_away), first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        return max(pause, at_least) if wanted == [past[-1].connection] else pause
