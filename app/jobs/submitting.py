"""The submitter: buys a film for a queued job, at most once.

The intent is committed before a byte leaves; the request goes out once, within an absolute deadline; what it ended in
decides the next state (DESIGN §5). A lease that runs out means *unknown*, never "again".
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.backoff import exponential
from app.ids import Prefix, encode, new_id
from app.jobs import failures, ledger, repository, schedule
from app.jobs.recorder import persist
from app.jobs.records import Claim, Job
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.jobs.workbench import Workbench
from app.lanes import Overtaken
from app.metrics import SUBMISSIONS
from app.providers.base import Accepted, Provider, Rejected, SubmitOutcome, Unknown, Unsent
from app.providers.registry import Route
from app.providers.transport import Call
from app.queue import Lane

#: Between the end of the send deadline and the end of the lease.
LEASE_MARGIN_SECONDS = 15
SLOT_WAIT_SECONDS = 30
NO_ROUTE_WAIT_SECONDS = 30
FIRST_RETRY_SECONDS = 1
LONGEST_RETRY_SECONDS = 60

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
            await self._end(claim, State.CANCELED)
        elif now >= job.deadline_at:
            await self._end(claim, State.FAILED, error=failures.DEADLINE)
        else:
            await self._buy(claim, job)

    async def _buy(self, claim: Claim, job: Job) -> None:
        purchase = await self._intend(claim, job)
        if purchase is None:
            return
        provider = self._bench.registry.provider(purchase.connection)
        outcome = await provider.submit(purchase.call, purchase.deadline)
        SUBMISSIONS.labels(connection=purchase.connection, outcome=type(outcome).__name__.lower()).inc()
        await persist(lambda: self._record(claim, purchase, provider, outcome))

    async def _intend(self, claim: Claim, job: Job) -> Purchase | None:
        """Commit the intent to buy; None when the job has to wait instead."""
        routes = self._bench.registry.routes(job.model)
        if not routes:
            async with self._bench.database.begin() as connection:
                await schedule.defer(connection, [(claim, NO_ROUTE_WAIT_SECONDS)])
                words = f"No configured connection serves {job.model} now."
                await self._bench.recorder.notice(connection, job.id, words)
            return None
        submission_id = new_id()
        try:
            return await self._commit_intent(claim, job, routes, submission_id)
        except (SQLAlchemyError, OSError):
            # Cut at the commit: the intent may be there, and we know that nothing was sent.
            await persist(lambda: self._withdraw(claim, job, submission_id))
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
            await schedule.defer(connection, [(claim, SLOT_WAIT_SECONDS)], waits_for=waits_for)
            words = f"Every slot of the connections that serve this model is taken; the job is in line for {waits_for}."
            await self._bench.recorder.notice(connection, job.id, words)
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

    async def _record(self, claim: Claim, purchase: Purchase, provider: Provider, outcome: SubmitOutcome) -> None:
        match outcome:
            case Accepted():
                try:
                    await self._accepted(purchase, provider, outcome)
                except IntegrityError:
                    # A lost submission of the same order was found in the list and took this record for its own. Its
                    # true one is still there: the resolver looks for it, as for any other.
                    taken = Unknown(f"the record {outcome.remote_id} was taken by a twin of this order")
                    await self._unknown(claim, purchase, provider, taken)
            case Rejected():
                await self._rejected(claim, purchase, outcome)
            case Unsent():
                await self._unsent(claim, purchase, outcome)
            case Unknown():
                await self._unknown(claim, purchase, provider, outcome)

    async def _accepted(self, purchase: Purchase, provider: Provider, outcome: Accepted) -> None:
        await self._bench.recorder.accepted(
            self._bench.database,
            job_id=purchase.job_id,
            submission_id=purchase.submission_id,
            remote_id=outcome.remote_id,
            cost_limit=outcome.cost_limit,
            bills_on=provider.traits.bills_on,
            next_in=self._bench.registry.poll_interval(purchase.connection),
            raw=outcome.raw,
        )
        self._bench.bell.ring(Lane.POLL)

    async def _rejected(self, claim: Claim, purchase: Purchase, outcome: Rejected) -> None:
        failure = outcome.failure
        async with self._bench.database.begin() as connection:
            await ledger.end(
                connection,
                purchase.submission_id,
                SubmissionState.REJECTED,
                charge_certainty=ChargeCertainty.NONE.value,
                failure=failures.of_provider(failure),
                detail=failure.detail[:2000],
                raw=failure.raw,
            )
            if failure.retryable:
                asked = failure.retry_after.total_seconds() if failure.retry_after else 0
                await self._requeue(connection, claim, purchase.job_id, failure.message, at_least=asked)
            else:
                await self._bench.recorder.move(
                    connection,
                    purchase.job_id,
                    State.FAILED,
                    from_=(State.SUBMITTING,),
                    fence=claim.fence,
                    error=failures.of_provider(failure),
                )
            await ledger.slot_freed(connection, purchase.connection)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER)

    async def _unsent(self, claim: Claim, purchase: Purchase, outcome: Unsent) -> None:
        log.warning("provider not reached", job=encode(Prefix.JOB, purchase.job_id), connection=purchase.connection)
        await self._nothing_sent(claim, purchase.job_id, purchase.submission_id, outcome.detail)

    async def _nothing_sent(self, claim: Claim, job_id: UUID, submission_id: UUID, detail: str) -> None:
        async with self._bench.database.begin() as connection:
            upstream = await ledger.end(
                connection,
                submission_id,
                SubmissionState.ABSENT,
                charge_certainty=ChargeCertainty.NONE.value,
                detail=detail[:2000],
            )
            notice = "The provider could not be reached; nothing was sent. Trying again until the job's deadline."
            await self._requeue(connection, claim, job_id, notice)
            await ledger.slot_freed(connection, upstream)

    async def _requeue(
        self, connection: AsyncConnection, claim: Claim, job_id: UUID, notice: str, *, at_least: float = 0
    ) -> None:
        refused = await ledger.turned_away(connection, job_id)
        pause = exponential(refused, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        await self._bench.recorder.move(
            connection,
            job_id,
            State.QUEUED,
            from_=(State.SUBMITTING,),
            fence=claim.fence,
            next_in=max(at_least, pause),
            notice=notice,
        )

    async def _unknown(self, claim: Claim, purchase: Purchase, provider: Provider, outcome: Unknown) -> None:
        left = max(0.0, purchase.deadline - asyncio.get_running_loop().time())
        async with self._bench.database.begin() as connection:
            await ledger.change(
                connection,
                purchase.submission_id,
                state=SubmissionState.UNKNOWN.value,
                detail=outcome.detail[:2000],
                raw=outcome.raw,
            )
            await self._bench.recorder.move(
                connection,
                purchase.job_id,
                State.SUBMIT_UNKNOWN,
                from_=(State.SUBMITTING,),
                fence=claim.fence,
                next_in=left + provider.traits.visibility_delay.total_seconds(),
                notice="The provider's answer was lost. Finding out whether it accepted the job, before anything else.",
            )
        log.warning(
            "submission outcome unknown",
            job=encode(Prefix.JOB, purchase.job_id),
            connection=purchase.connection,
            detail=outcome.detail,
        )

    async def _lease_ran_out(self, claim: Claim) -> None:
        """The worker that was sending is gone, or late: what it sent is unknown."""
        async with self._bench.database.begin() as connection:
            submission = await ledger.live_of(connection, claim.job_id)
            if submission is not None:
                await ledger.change(
                    connection,
                    submission.id,
                    state=SubmissionState.UNKNOWN.value,
                    detail="the worker that was sending did not report back",
                )
            await self._bench.recorder.move(
                connection,
                claim.job_id,
                State.SUBMIT_UNKNOWN,
                from_=(State.SUBMITTING,),
                fence=claim.fence,
                notice="A worker stopped while it was buying. Finding out whether the provider accepted the job.",
            )
        self._bench.bell.ring(Lane.CONFIRM)

    async def _withdraw(self, claim: Claim, job: Job, submission_id: UUID) -> None:
        try:
            await self._nothing_sent(claim, job.id, submission_id, "the intent could not be committed")
        except Overtaken:
            log.info("the intent was not committed", job=encode(Prefix.JOB, job.id))

    async def _end(self, claim: Claim, to: State, error: Any = None) -> None:
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.move(
                connection,
                claim.job_id,
                to,
                from_=(State.QUEUED,),
                fence=claim.fence,
                error=error,
            )
        self._bench.bell.ring(Lane.DELIVER)
