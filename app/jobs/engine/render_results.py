"""The result of a render, recorded under the job's claim.

As in :mod:`app.jobs.engine.submit_results` the job's row is locked first, then its submission and its schedule row are
written.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import structlog

from app.claims import ClaimLost
from app.events.types import EventType
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.jobs import billing, errors
from app.jobs.db import repository, submissions
from app.jobs.engine.context import EngineContext
from app.jobs.engine.finder import shows_another_request
from app.jobs.engine.requeue import Requeuer, SubmissionFailure
from app.jobs.engine.submit_results import DETAIL_CHARACTERS
from app.jobs.records import Claim, Job, Submission, SubmissionChange
from app.jobs.states import State, SubmissionState
from app.jobs.transitions import Changes
from app.providers.base import BillsOn, Canceled, CancelOutcome, Failed, Finished
from app.providers.errors import Billed

LOST_FOR_FREE = "The provider lost the render, at no cost. Submitting it again."

log = structlog.get_logger()


class RenderResults:
    """Records the results of renders. Every method may raise :class:`ClaimLost`: another worker has the job."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._requeuer = Requeuer(context)

    async def finished(self, claim: Claim, submission: Submission, result: Finished) -> None:
        """The video can be fetched. The render no longer takes a slot."""
        async with self._context.transitions.begin() as changes:
            job = await self._rendering(changes, claim)
            ours = not shows_another_request(self._context.provider(submission), job, submission, result.raw)
            if ours:
                finished = self._context.finished(submission, result)
                await submissions.change(changes.conn, submission.id, **finished)
                await changes.move(claim.job_id, State.STORING, from_=(State.RUNNING,), fence=claim.fence, progress=100)
            await failpoint(Failpoint.POLL_RECORDED)
        if not ours:
            log.error(
                "remote job does not match the submission",
                job=encode(Prefix.JOB, claim.job_id),
                remote=submission.remote_id,
            )
            await self.lost(claim, submission)

    async def failed(self, claim: Claim, submission: Submission, result: Failed) -> None:
        """The provider says that the render failed: :mod:`app.jobs.engine.requeue` does the rest."""
        failure = result.failure
        error = errors.of_provider(failure)
        async with self._context.transitions.begin() as changes:
            job = await self._rendering(changes, claim)
            failed = SubmissionFailure(
                state=SubmissionState.DONE,
                error=error,
                notice=f"{failure.message} Trying the next route.",
                ledger={
                    **self._cost(submission, failure.billed, result.cost),
                    "failure": error,
                    "detail": f"{failure.upstream_code or ''} {failure.detail}".strip()[:DETAIL_CHARACTERS],
                    "raw": result.raw,
                },
            )
            await self._requeuer.requeue_or_fail(changes, job, submission, failed, fence=claim.fence)
            await failpoint(Failpoint.POLL_RECORDED)

    async def canceled(self, claim: Claim, submission: Submission, result: Canceled) -> None:
        """The provider says that the render was stopped: at our request, or by the upstream account's owner."""
        async with self._context.transitions.begin() as changes:
            job = await self._rendering(changes, claim)
            requested = job.cancel_requested_at is not None
            error = None if requested else errors.CANCELED_UPSTREAM
            cost = self._cost(submission, Billed.UNKNOWN, result.cost)
            ended: SubmissionChange = {**cost, "failure": error, "raw": result.raw}
            await submissions.end(changes.conn, submission.id, SubmissionState.DONE, **ended)
            await changes.move(
                claim.job_id,
                State.CANCELED if requested else State.FAILED,
                from_=(State.RUNNING,),
                fence=claim.fence,
                error=error,
            )
            await failpoint(Failpoint.POLL_RECORDED)

    async def lost(self, claim: Claim, submission: Submission) -> None:
        """The provider no longer knows the render. Where renders cost nothing the job is submitted again."""
        if not self.costs_nothing(submission):
            await self.abandoned(claim, submission, errors.LOST)
            return
        async with self._context.transitions.begin() as changes:
            job = await self._rendering(changes, claim)
            await self.submit_again(changes, claim, job, submission)
            await failpoint(Failpoint.POLL_RECORDED)

    def costs_nothing(self, submission: Submission) -> bool:
        """Whether a replacement render is free."""
        return self._context.bills_on(submission.connection) is BillsOn.NEVER

    async def submit_again(self, changes: Changes, claim: Claim, job: Job, submission: Submission) -> None:
        """Abandon a render that was lost at no cost, in the caller's transaction, which holds the job.

        It is reconciled: should it reappear it is recognised by its id, and its video is not the job's.
        """
        lost = SubmissionFailure(
            state=SubmissionState.ABANDONED,
            error=errors.LOST,
            notice=LOST_FOR_FREE,
            ledger=self._abandoned(submission, errors.LOST),
        )
        await self._context.reconcile(changes, submission)
        await self._requeuer.requeue_or_fail(changes, job, submission, lost, fence=claim.fence)

    async def abandoned(self, claim: Claim, submission: Submission, error: Mapping[str, Any]) -> None:
        """The job's deadline passed, or the provider lost the render. It may still finish: it is reconciled."""
        async with self._context.transitions.begin() as changes:
            await self._rendering(changes, claim)
            ended = self._abandoned(submission, error)
            await submissions.end(changes.conn, submission.id, SubmissionState.ABANDONED, **ended)
            await self._context.reconcile(changes, submission)
            await changes.move(claim.job_id, State.FAILED, from_=(State.RUNNING,), fence=claim.fence, error=error)
            await failpoint(Failpoint.POLL_RECORDED)

    async def cancel_replied(self, claim: Claim, result: CancelOutcome) -> None:
        """The provider replied to a cancel."""
        async with self._context.transitions.begin() as changes:
            await changes.amend(claim.job_id, EventType.CANCEL_ANSWERED, cancel_outcome=result.value)

    async def _rendering(self, changes: Changes, claim: Claim) -> Job:
        job = await repository.lock(changes.conn, claim.job_id)
        if job is None or job.state is not State.RUNNING:
            raise ClaimLost
        return job

    def _abandoned(self, submission: Submission, error: Mapping[str, Any]) -> SubmissionChange:
        cost = self._cost(submission, Billed.UNKNOWN, None)
        # The reconciler counts from its own first poll for how long the remote job is missing.
        return {**cost, "failure": error, "detail": None, "raw": None, "missing_since": None}

    def _cost(self, submission: Submission, billed: Billed, cost: Decimal | None) -> SubmissionChange:
        bills_on = self._context.bills_on(submission.connection)
        return {"cost": cost, "charge_certainty": billing.of_failure(submission, bills_on, billed, cost)}
