"""What became of a render, written down: the decisions of whoever holds the job's claim.

As in :mod:`app.jobs.engine.submit_results` the job's row is locked first, then come its submission and its place on
the schedule.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import billing, failures
from app.jobs.db import repository, submissions
from app.jobs.engine.context import Workbench
from app.jobs.engine.finder import shows_another_order
from app.jobs.engine.requeue import Turns
from app.jobs.engine.submit_results import DETAIL_CHARACTERS
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import State, SubmissionState
from app.providers.base import BillsOn, Canceled, CancelOutcome, Failed, Finished
from app.providers.errors import Billed

log = structlog.get_logger()


class Verdicts:
    """Ends renders. Every method may raise :class:`Overtaken`: somebody else has the job now."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._turns = Turns(bench)

    async def finished(self, claim: Claim, submission: Submission, outcome: Finished) -> None:
        """The film is there to be fetched. From now on it takes no slot."""
        cost, certainty = billing.of_success(submission, self._bench.bills_on(submission.connection), outcome.cost)
        async with self._bench.database.begin() as connection:
            job = await self._rendering(connection, claim)
            ours = not shows_another_order(self._bench.provider(submission), job, submission, outcome.raw)
            if ours:
                await submissions.change(
                    connection,
                    submission.id,
                    results=list(outcome.results),
                    cost=cost,
                    charge_certainty=certainty.value,
                    raw=outcome.raw,
                )
                await self._bench.recorder.move(
                    connection, claim.job_id, State.STORING, from_=(State.RUNNING,), fence=claim.fence, progress=100
                )
            await checkpoint(Checkpoint.POLL_RECORDED)
        if ours:
            self._bench.bell.ring(Lane.STORE, Lane.SUBMIT)
        else:
            log.error(
                "remote id shows another order", job=encode(Prefix.JOB, claim.job_id), remote=submission.remote_id
            )
            await self.lost(claim, submission)

    async def failed(self, claim: Claim, submission: Submission, outcome: Failed) -> None:
        """There will be no film from here: the next way has its turn, if there is one."""
        failure = outcome.failure
        error = failures.of_provider(failure)
        async with self._bench.database.begin() as connection:
            job = await self._rendering(connection, claim)
            await self._end(
                connection,
                submission,
                SubmissionState.DONE,
                error=error,
                billed=failure.billed,
                cost=outcome.cost,
                detail=f"{failure.upstream_code or ''} {failure.detail}".strip()[:DETAIL_CHARACTERS],
                raw=outcome.raw,
            )
            await self._turns.go_on(
                connection,
                job,
                from_=(State.RUNNING,),
                fence=claim.fence,
                error=error,
                notice=f"{failure.message} Trying the next way to make this film.",
            )
            await checkpoint(Checkpoint.POLL_RECORDED)
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT)

    async def canceled(self, claim: Claim, submission: Submission, outcome: Canceled) -> None:
        """The provider says that the render was stopped: by us, or by somebody else who may."""
        async with self._bench.database.begin() as connection:
            job = await self._rendering(connection, claim)
            asked = job.cancel_requested_at is not None
            error = None if asked else failures.CANCELED_UPSTREAM
            await self._end(
                connection, submission, SubmissionState.DONE, error=error, cost=outcome.cost, raw=outcome.raw
            )
            await self._bench.recorder.move(
                connection,
                claim.job_id,
                State.CANCELED if asked else State.FAILED,
                from_=(State.RUNNING,),
                fence=claim.fence,
                error=error,
            )
            await checkpoint(Checkpoint.POLL_RECORDED)
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT)

    async def lost(self, claim: Claim, submission: Submission) -> None:
        """The provider no longer knows the render. Where renders cost nothing the job is submitted again."""
        if not self.costs_nothing(submission):
            await self.given_up(claim, submission, failures.LOST)
            return
        async with self._bench.database.begin() as connection:
            job = await self._rendering(connection, claim)
            await self.submit_again(connection, claim, job, submission)
            await checkpoint(Checkpoint.POLL_RECORDED)
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT, Lane.WATCH)

    def costs_nothing(self, submission: Submission) -> bool:
        """Whether another render in its place is free."""
        return self._bench.bills_on(submission.connection) is BillsOn.NEVER

    async def submit_again(self, connection: AsyncConnection, claim: Claim, job: Job, submission: Submission) -> None:
        """In the caller's transaction, which holds the job: abandon a render that was lost at no cost.

        It stays watched: if it turns up after all it is known by its id, and is not the job's video.
        """
        await self._abandon(connection, submission, failures.LOST)
        await self._turns.go_on(
            connection,
            job,
            from_=(job.state,),
            fence=claim.fence,
            error=failures.LOST,
            notice="The provider lost the render, at no cost. Submitting it again.",
        )

    async def given_up(self, claim: Claim, submission: Submission, error: Mapping[str, Any]) -> None:
        """Our own deadline, or the provider no longer knows the render. That is no verdict: it stays watched."""
        async with self._bench.database.begin() as connection:
            await self._rendering(connection, claim)
            await self._abandon(connection, submission, error)
            await self._bench.recorder.move(
                connection, claim.job_id, State.FAILED, from_=(State.RUNNING,), fence=claim.fence, error=error
            )
            await checkpoint(Checkpoint.POLL_RECORDED)
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT, Lane.WATCH)

    async def cancel_answered(self, claim: Claim, outcome: CancelOutcome) -> None:
        """What the provider said when it was asked to stop."""
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.amend(
                connection, claim.job_id, "job.cancel_answered", cancel_outcome=outcome.value
            )

    async def _rendering(self, connection: AsyncConnection, claim: Claim) -> Job:
        job = await repository.lock(connection, claim.job_id)
        if job is None or job.state is not State.RUNNING:
            raise Overtaken
        return job

    async def _abandon(self, connection: AsyncConnection, submission: Submission, error: Mapping[str, Any]) -> None:
        await self._end(connection, submission, SubmissionState.ABANDONED, error=error)
        await submissions.change(connection, submission.id, missing_since=None)  # the watch counts anew
        await self._bench.watch(connection, submission)

    async def _end(
        self,
        connection: AsyncConnection,
        submission: Submission,
        state: SubmissionState,
        *,
        error: Mapping[str, Any] | None,
        billed: Billed = Billed.UNKNOWN,
        cost: Decimal | None = None,
        detail: str | None = None,
        raw: Any = None,
    ) -> None:
        certainty = billing.of_failure(submission, self._bench.bills_on(submission.connection), billed, cost)
        await submissions.end(
            connection,
            submission.id,
            state,
            cost=cost,
            charge_certainty=certainty.value,
            failure=error,
            detail=detail,
            raw=raw,
        )
