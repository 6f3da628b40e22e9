"""The submitter: buys a film for a queued job, at most once.

The intent is committed before a byte leaves; the request goes out once, within an absolute deadline; what it ended in
decides the next state (DESIGN §5). A lease that runs out means *unknown*, never "again".
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.backoff import jittered
from app.ids import new_id
from app.jobs import failures, ledger, repository, schedule
from app.jobs.outcomes import Outcomes, persist
from app.jobs.records import Claim, Job
from app.jobs.states import State
from app.jobs.workbench import Workbench
from app.lanes import Overtaken
from app.metrics import SUBMISSIONS
from app.providers.base import Accepted, Rejected, SubmitOutcome, Unknown, Unsent
from app.providers.registry import Route
from app.providers.transport import Call
from app.queue import Lane

#: Between the end of the send deadline and the end of the lease.
LEASE_MARGIN_SECONDS = 15
#: Whoever frees a slot wakes those who wait for it; this is for a limit that was raised meanwhile.
SLOT_WAIT_SECONDS = 120
NO_ROUTE_WAIT_SECONDS = 30
NOT_REACHED = "The provider could not be reached; nothing was sent. Trying again until the job's deadline."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Purchase:
    """One paid request, ready to be sent. ``deadline`` is event-loop time."""

    submission_id: UUID
    job_id: UUID
    connection: str
    call: Call
    deadline: float


class Submitter:
    """Advances jobs in the `submit` lane."""

    lane = Lane.SUBMIT

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One step of one job: buy, wait, or end."""
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            now = await repository.now(connection)
        if job is None:
            return
        if job.state is State.SUBMITTING:
            await self._lease_ran_out(claim)
        elif job.cancel_requested_at is not None:
            await self._end(claim, job, State.CANCELED)
        elif now >= job.deadline_at:
            await self._end(claim, job, State.FAILED, error=failures.DEADLINE)
        else:
            await self._buy(claim, job)

    async def _buy(self, claim: Claim, job: Job) -> None:
        purchase = await self._intend(claim, job)
        if purchase is None:
            return
        provider = self._bench.registry.provider(purchase.connection)
        outcome = await provider.submit(purchase.call, purchase.deadline)
        SUBMISSIONS.labels(connection=purchase.connection, outcome=type(outcome).__name__.lower()).inc()
        await persist(lambda: self._record(purchase, outcome))

    async def _intend(self, claim: Claim, job: Job) -> Purchase | None:
        """Commit the intent to buy; None when the job has to wait instead."""
        routes = self._bench.registry.routes(job.model)
        if not routes:
            async with self._bench.database.begin() as connection:
                words = f"No configured connection serves {job.model} now."
                await self._bench.recorder.notice(connection, job.id, words)
                await schedule.defer(connection, [(claim, NO_ROUTE_WAIT_SECONDS)])
            return None
        submission_id = new_id()
        try:
            return await self._commit_intent(claim, job, routes, submission_id)
        except (SQLAlchemyError, OSError):
            # Cut at the commit: the intent may be there, and we know that nothing was sent.
            with suppress(Overtaken):
                withdrawn = "the intent could not be committed"
                await persist(lambda: self._outcomes.nothing_bought(job.id, submission_id, withdrawn, NOT_REACHED))
            raise

    async def _commit_intent(
        self, claim: Claim, job: Job, routes: Sequence[Route], submission_id: UUID
    ) -> Purchase | None:
        async with self._bench.database.begin() as connection:
            # After a refusal the next connection that serves the model has its turn.
            turn = await ledger.turned_away(connection, job.id) % len(routes)
            await ledger.lock_slots(connection, [route.connection for route in routes])
            for route in (*routes[turn:], *routes[:turn]):
                limit = self._bench.registry.max_concurrent(route.connection)
                if await ledger.slots_taken(connection, route.connection) < limit:
                    return await self._write_intent(connection, claim, job, route, submission_id)
            # In the transaction that saw the slots taken: whoever frees one next finds this job waiting.
            waits_for = routes[turn].connection
            words = f"Every slot of the connections that serve this model is taken; the job is in line for {waits_for}."
            await self._bench.recorder.notice(connection, job.id, words)
            await schedule.defer(connection, [(claim, jittered(SLOT_WAIT_SECONDS))], waits_for=waits_for)
        return None

    async def _write_intent(
        self, connection: AsyncConnection, claim: Claim, job: Job, route: Route, submission_id: UUID
    ) -> Purchase:
        within = self._bench.settings.submit_timeout
        # Before the database's own deadline begins to count: ours must not be the later one.
        deadline = asyncio.get_running_loop().time() + within
        order = job.ordered.order(route.upstream_model)
        call = self._bench.registry.provider(route.connection).create_call(order, submission_id)
        await ledger.write_intent(
            connection,
            ledger.Intent(
                id=submission_id,
                job_id=job.id,
                account_id=job.account_id,
                connection=route.connection,
                upstream_model=route.upstream_model,
                body_hash=hashlib.sha256(call.body).digest(),
                send_within=within,
            ),
        )
        await self._bench.recorder.move(
            connection,
            job.id,
            State.SUBMITTING,
            from_=(State.QUEUED,),
            fence=claim.fence,
            next_in=within + LEASE_MARGIN_SECONDS,
        )
        return Purchase(submission_id, job.id, route.connection, call, deadline)

    async def _record(self, purchase: Purchase, outcome: SubmitOutcome) -> None:
        job_id, submission_id = purchase.job_id, purchase.submission_id
        match outcome:
            case Accepted():
                try:
                    await self._outcomes.accepted(job_id, submission_id, outcome)
                except ledger.TwinTookIt as error:
                    # A lost submission of an equal order was found in the list and took this record for its own. Its
                    # true one is still there: the resolver looks for it, as for any other.
                    await self._outcomes.unknown(job_id, submission_id, Unknown(str(error)))
            case Rejected():
                await self._outcomes.rejected(job_id, submission_id, outcome)
            case Unsent():
                log.warning("provider not reached", connection=purchase.connection, detail=outcome.detail)
                await self._outcomes.nothing_bought(job_id, submission_id, outcome.detail, NOT_REACHED)
            case Unknown():
                await self._outcomes.unknown(job_id, submission_id, outcome)

    async def _lease_ran_out(self, claim: Claim) -> None:
        """The worker that was sending is gone, or late: what it sent is unknown."""
        async with self._bench.database.read() as connection:
            submission = await ledger.live_of(connection, claim.job_id)
        if submission is not None:
            gone = Unknown("the worker that was sending did not report back")
            await self._outcomes.unknown(claim.job_id, submission.id, gone, fence=claim.fence)

    async def _end(self, claim: Claim, job: Job, to: State, error: Any = None) -> None:
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.move(
                connection,
                claim.job_id,
                to,
                from_=(State.QUEUED,),
                fence=claim.fence,
                error=error,
            )
            # It may have been woken for a slot that it does not take now.
            for route in self._bench.registry.routes(job.model):
                await self._bench.slot_freed(connection, route.connection)
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT)
