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
    job: Job
    route: Route
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
        provider = self._bench.registry.provider(purchase.route.connection)
        outcome = await provider.submit(purchase.call, purchase.deadline)
        SUBMISSIONS.labels(connection=purchase.route.connection, outcome=type(outcome).__name__.lower()).inc()
        await persist(lambda: self._record(claim, purchase, provider, outcome))

    async def _intend(self, claim: Claim, job: Job) -> Purchase | None:
        """Commit the intent to buy; None when the job has to wait instead."""
        async with self._bench.database.read() as connection:
            refused = await ledger.turned_away(connection, job.id)
        routes = self._bench.registry.routes(job.model)
        if not routes:
            await self._wait(claim, f"No configured connection serves {job.model} now.", NO_ROUTE_WAIT_SECONDS)
            return None
        # After a refusal the next connection that serves the model has its turn.
        turn = refused % len(routes)
        for route in (*routes[turn:], *routes[:turn]):
            purchase = self._prepare(job, route)
            try:
                if await self._commit_intent(claim, purchase):
                    return purchase
            except (SQLAlchemyError, OSError):
                # Cut at the commit: the intent may be there, and we know that nothing was sent.
                await persist(lambda p=purchase: self._withdraw(claim, p))  # type: ignore[misc]
                raise
        await self._wait_for_slot(claim, routes[turn])
        return None

    def _prepare(self, job: Job, route: Route) -> Purchase:
        submission_id = new_id()
        call = self._bench.registry.provider(route.connection).create_call(
            job.ordered.order(route.upstream_model), submission_id
        )
        deadline = asyncio.get_running_loop().time() + self._bench.settings.submit_timeout
        return Purchase(submission_id, job, route, call, deadline)

    async def _commit_intent(self, claim: Claim, purchase: Purchase) -> bool:
        job, route = purchase.job, purchase.route
        within = self._bench.settings.submit_timeout
        async with self._bench.database.begin() as connection:
            if not await ledger.free_slots(
                connection, route.connection, self._bench.registry.max_concurrent(route.connection)
            ):
                return False
            await ledger.write_intent(
                connection,
                ledger.Intent(
                    id=purchase.submission_id,
                    job_id=job.id,
                    account_id=job.account_id,
                    connection=route.connection,
                    upstream_model=route.upstream_model,
                    body_hash=hashlib.sha256(purchase.call.body).digest(),
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
        return True

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
            job_id=purchase.job.id,
            submission_id=purchase.submission_id,
            remote_id=outcome.remote_id,
            cost_limit=outcome.cost_limit,
            bills_on=provider.traits.bills_on,
            next_in=self._bench.registry.poll_interval(purchase.route.connection),
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
                refused = await ledger.turned_away(connection, purchase.job.id)
                asked = failure.retry_after.total_seconds() if failure.retry_after else 0
                await self._requeue(connection, claim, purchase, failure.message, max(asked, _pause(refused)))
            else:
                await self._bench.recorder.move(
                    connection,
                    purchase.job.id,
                    State.FAILED,
                    from_=(State.SUBMITTING,),
                    fence=claim.fence,
                    error=failures.of_provider(failure),
                )
            await schedule.wake_waiting(connection, purchase.route.connection, 1)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER)

    async def _unsent(self, claim: Claim, purchase: Purchase, outcome: Unsent) -> None:
        async with self._bench.database.begin() as connection:
            refused = await ledger.turned_away(connection, purchase.job.id)
            await ledger.end(
                connection,
                purchase.submission_id,
                SubmissionState.ABSENT,
                charge_certainty=ChargeCertainty.NONE.value,
                detail=outcome.detail[:2000],
            )
            notice = "The provider could not be reached; nothing was sent. Trying again until the job's deadline."
            await self._requeue(connection, claim, purchase, notice, _pause(refused + 1))
            await schedule.wake_waiting(connection, purchase.route.connection, 1)
        log.warning(
            "provider not reached", job=encode(Prefix.JOB, purchase.job.id), connection=purchase.route.connection
        )

    async def _requeue(
        self, connection: AsyncConnection, claim: Claim, purchase: Purchase, notice: str, delay: float
    ) -> None:
        await self._bench.recorder.move(
            connection,
            purchase.job.id,
            State.QUEUED,
            from_=(State.SUBMITTING,),
            fence=claim.fence,
            next_in=delay,
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
                purchase.job.id,
                State.SUBMIT_UNKNOWN,
                from_=(State.SUBMITTING,),
                fence=claim.fence,
                next_in=left + provider.traits.visibility_delay.total_seconds(),
                notice="The provider's answer was lost. Finding out whether it accepted the job, before anything else.",
            )
        log.warning(
            "submission outcome unknown",
            job=encode(Prefix.JOB, purchase.job.id),
            connection=purchase.route.connection,
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

    async def _withdraw(self, claim: Claim, purchase: Purchase) -> None:
        try:
            await self._unsent(claim, purchase, Unsent("the intent could not be committed"))
        except Overtaken:
            log.info("the intent was not committed", job=encode(Prefix.JOB, purchase.job.id))

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

    async def _wait(self, claim: Claim, notice: str, delay: float, *, waits_for: str | None = None) -> None:
        async with self._bench.database.begin() as connection:
            await schedule.defer(connection, [(claim, delay)], waits_for=waits_for)
            await self._bench.recorder.notice(connection, claim.job_id, notice)

    async def _wait_for_slot(self, claim: Claim, route: Route) -> None:
        notice = (
            f"All slots of the connections that serve the model are taken ({route.connection}); the job is in line."
        )
        await self._wait(claim, notice, SLOT_WAIT_SECONDS, waits_for=route.connection)


def _pause(refused: int) -> float:
    return exponential(refused, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
