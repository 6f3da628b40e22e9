"""A submission failed: everything that follows, in one place.

The provider refused the request, its render failed or was lost, or nothing was sent. In the caller's transaction, which
holds the job's row lock, in this order:

1. the submission ends, with what the provider said and what it cost;
2. the job's ledger and the closed connections decide its next route (:mod:`app.jobs.failover`);
3. the job is queued for that route, after a pause if the route did not accept it before; without a route it fails, and
   a job whose cancel was requested is canceled.

The event, the webhook and the bell follow from the move: see :mod:`app.jobs.transitions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.backoff import exponential
from app.ids import Prefix, encode
from app.jobs import failover
from app.jobs.db import connection_health, repository, submissions
from app.jobs.engine.context import EngineContext
from app.jobs.records import Job, Submission, SubmissionChange
from app.jobs.states import State, SubmissionState
from app.jobs.transitions import Changes

FIRST_RETRY_SECONDS = 1
LONGEST_RETRY_SECONDS = 60

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionFailure:
    """How a submission ended without a video.

    ``error`` is the job's error if no route remains; ``notice`` is shown while it waits for the next one.
    ``retry_after`` are the seconds that the connection asked to wait. ``ledger`` are the other columns of the
    submission.
    """

    state: SubmissionState
    error: Mapping[str, Any]
    notice: str
    ledger: SubmissionChange = field(default_factory=SubmissionChange)
    retry_after: float = 0


class Requeuer:
    """Ends failed submissions, and queues or fails their jobs."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context

    async def requeue_or_fail(
        self, changes: Changes, job: Job, submission: Submission, failure: SubmissionFailure, *, fence: int | None
    ) -> None:
        """End the submission; queue the job for its next route or fail it. ``fence`` is the claim's; None: evidence."""
        await submissions.end(changes.conn, submission.id, failure.state, **failure.ledger)
        ledger = await submissions.ledger_of(changes.conn, job.id)
        route = await self._next_route(changes, job, ledger)
        from_ = (job.state,)
        canceled = job.cancel_requested_at is not None
        if route is None and not canceled:
            await changes.move(job.id, State.FAILED, from_=from_, fence=fence, error=failure.error)
            return
        route = route or failover.NextRoute(job.model)
        pause = self._pause(ledger, route, failure.retry_after)
        await changes.move(
            job.id,
            State.QUEUED,
            from_=from_,
            fence=fence,
            next_in=pause,
            route=route,
            notice=failure.notice,
            progress=0,
        )
        if canceled:
            await changes.move(job.id, State.CANCELED, from_=(State.QUEUED,), fence=None)
        log.info("job requeued", job=encode(Prefix.JOB, job.id), model=route.model, avoid=route.avoid, pause=pause)

    async def _next_route(self, changes: Changes, job: Job, ledger: list[Submission]) -> failover.NextRoute | None:
        rendered = job.state in {State.RUNNING, State.STORING}
        if rendered and await repository.now(changes.conn) >= job.deadline_at:
            return None  # the job fails with the error of the render, not with `deadline_exceeded`
        closed = await connection_health.closed(changes.conn)
        return failover.next_route(job, ledger, self._context.registry.connections_of, closed)

    def _pause(self, ledger: list[Submission], route: failover.NextRoute, retry_after: float) -> float:
        """Seconds until the next submission: none on a route that has not refused the job yet.

        ``retry_after`` applies only if the same connection is the only one left.
        """
        not_accepted = [one for one in ledger if failover.not_accepted(one)]
        wanted = [name for name in self._context.registry.connections_of(route.model) if name not in route.avoid]
        if not any(one.model == route.model and one.connection in wanted for one in not_accepted):
            return 0
        pause = exponential(len(not_accepted), first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        return max(pause, retry_after) if wanted == [ledger[-1].connection] else pause
