"""Records the result of a paid request, however late it becomes known: evidence needs no fence.

Every method takes the job's row lock first, then reads the current state of the job and of the submission. So a worker
that was paused past its lease, a resolver and a repeated write all reach the same state.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import ClaimLost
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.db import NOW
from app.jobs import billing, errors
from app.jobs.db import repository, submissions
from app.jobs.engine.context import EngineContext
from app.jobs.engine.requeue import Requeuer, SubmissionFailure
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.jobs.transitions import Changes
from app.providers.base import Accepted, Rejected, Unknown

DETAIL_CHARACTERS = 2000
DELAYED = "The gateway was too slow to send the request; nothing was sent. Retrying now."
REPLY_LOST = "The provider's reply was lost. Checking whether it accepted the job."

SUBMITTED = (State.SUBMITTING, State.SUBMIT_UNKNOWN)

log = structlog.get_logger()


class SubmitResults:
    """Records the results of submissions."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._requeuer = Requeuer(context)

    async def accepted(self, job_id: UUID, submission_id: UUID, result: Accepted) -> None:
        """The provider accepted the request.

        Raises:
            RemoteIdAlreadyClaimed: the remote id belongs to another submission.
        """
        async with self._context.transitions.begin() as changes:
            job, submission = await self._locked(changes.conn, job_id, submission_id)
            if submission.remote_id is not None:
                if submission.remote_id != result.remote_id:
                    log.error("a submission has two remote ids", submission=_name(submission), other=result.remote_id)
                return
            await submissions.claim_remote_id(changes.conn, submission, result.remote_id)
            live = await submissions.live_of(changes.conn, job_id)
            ours = live is not None and live.id == submission.id
            if (job.state in SUBMITTED and ours) or (job.state is State.QUEUED and live is None):
                await self._accept(changes, submission, result)
            else:
                await self._accept_late(changes, job, submission, result)
            await failpoint(Failpoint.SUBMIT_RECORDED)

    async def _accept(self, changes: Changes, submission: Submission, result: Accepted) -> None:
        certainty = billing.of_acceptance(self._context.bills_on(submission.connection))
        await submissions.accept(changes.conn, submission.id, result, certainty)
        # A callback that arrived before the remote id was known may have been the last one: poll at once.
        called_back = submission.callback_remote_id is not None
        await changes.move(
            submission.job_id,
            State.RUNNING,
            from_=(*SUBMITTED, State.QUEUED),
            fence=None,
            next_in=0 if called_back else self._context.poll_interval(submission.connection),
            started_at=NOW,
            model_used=submission.model,
        )

    async def _accept_late(self, changes: Changes, job: Job, submission: Submission, result: Accepted) -> None:
        """The job has ended, or was submitted again after a wrong proof of absence: the charge still counts."""
        certainty = billing.of_late_acceptance(self._context.bills_on(submission.connection))
        await submissions.accept_late(changes.conn, submission.id, result, certainty)
        await self._context.reconcile(changes, submission)
        await changes.recount(job.id)
        log.error("accepted after the job had moved on", submission=_name(submission), job_state=job.state)

    async def rejected(self, job_id: UUID, submission_id: UUID, result: Rejected) -> None:
        """The provider refused the request: nothing is rendered."""
        failure = result.failure
        error = errors.of_provider(failure)
        async with self._context.transitions.begin() as changes:
            job, submission = await self._unresolved(changes.conn, job_id, submission_id)
            rejection = SubmissionFailure(
                state=SubmissionState.REJECTED,
                error=error,
                notice=f"{failure.message} Retrying.",
                ledger={
                    "charge_certainty": ChargeCertainty.NONE,
                    "failure": error,
                    "detail": failure.detail[:DETAIL_CHARACTERS],
                    "raw": failure.raw,
                },
                retry_after=failure.retry_after.total_seconds() if failure.retry_after else 0,
            )
            await self._requeuer.requeue_or_fail(changes, job, submission, rejection, fence=None)
            await failpoint(Failpoint.SUBMIT_RECORDED)

    async def not_sent_in_time(self, job_id: UUID, submission_id: UUID, detail: str) -> None:
        """The gateway was too slow and sent nothing: this does not count as a try."""
        await self.absent(job_id, submission_id, detail, DELAYED, failure=errors.NOT_SENT_IN_TIME)

    async def absent(
        self,
        job_id: UUID,
        submission_id: UUID,
        detail: str,
        notice: str,
        *,
        callback_remote_id: str | None = None,
        failure: Mapping[str, Any] | None = None,
    ) -> None:
        """Proved: no byte was sent, or the provider has no remote job for the request.

        ``callback_remote_id`` is the one that the proof considered: a callback that arrived since contradicts it.
        ``failure`` is recorded with the submission.
        """
        async with self._context.transitions.begin() as changes:
            job, submission = await self._unresolved(changes.conn, job_id, submission_id)
            if submission.callback_remote_id != callback_remote_id:
                raise ClaimLost
            absence = SubmissionFailure(
                state=SubmissionState.ABSENT,
                error=failure or errors.UNREACHABLE,
                notice=notice,
                ledger={
                    "charge_certainty": ChargeCertainty.NONE,
                    "missing_since": None,
                    "failure": failure,
                    "detail": detail[:DETAIL_CHARACTERS],
                },
            )
            await self._requeuer.requeue_or_fail(changes, job, submission, absence, fence=None)
            await failpoint(Failpoint.SUBMIT_RECORDED)

    async def unknown(self, job_id: UUID, submission_id: UUID, result: Unknown, *, fence: int | None = None) -> None:
        """The provider may have accepted the request: the resolver takes over. ``fence``: of a claim to be held."""
        async with self._context.transitions.begin() as changes:
            _, submission = await self._unresolved(changes.conn, job_id, submission_id)
            if submission.state is not SubmissionState.SENDING:
                return
            await submissions.change(
                changes.conn,
                submission_id,
                state=SubmissionState.UNKNOWN,
                detail=result.detail[:DETAIL_CHARACTERS],
                raw=result.raw,
                accepted_at=NOW if result.claimed else None,
            )
            await changes.move(job_id, State.SUBMIT_UNKNOWN, from_=(State.SUBMITTING,), fence=fence, notice=REPLY_LOST)
            await failpoint(Failpoint.SUBMIT_RECORDED)
        log.warning("submission result unknown", submission=_name(submission), detail=result.detail)

    async def unprovable(self, job_id: UUID, submission_id: UUID, detail: str) -> None:
        """Nothing proves whether the request was accepted: the job fails.

        The caller decides about another job. The submission is reconciled: its result may still become known.
        """
        async with self._context.transitions.begin() as changes:
            _, submission = await self._unresolved(changes.conn, job_id, submission_id)
            await submissions.end(
                changes.conn,
                submission_id,
                SubmissionState.ABANDONED,
                charge_certainty=billing.of_doubt(self._context.bills_on(submission.connection)),
                failure=errors.UNKNOWN,
                lookups=0,
                missing_since=None,
                detail=f"{submission.detail or ''}; {detail}"[:DETAIL_CHARACTERS],
            )
            await self._context.reconcile(changes, submission)
            await changes.move(job_id, State.FAILED, from_=(State.SUBMIT_UNKNOWN,), fence=None, error=errors.UNKNOWN)
            await failpoint(Failpoint.SUBMIT_RECORDED)

    async def absent_late(self, submission: Submission) -> None:
        """Proved after the job had ended: the request was not accepted, so it cost nothing."""
        async with self._context.transitions.begin() as changes:
            _, now = await self._locked(changes.conn, submission.job_id, submission.id)
            meanwhile = now.remote_id is not None or now.callback_remote_id != submission.callback_remote_id
            if now.state is not SubmissionState.ABANDONED or meanwhile:
                raise ClaimLost
            await submissions.change(
                changes.conn, submission.id, state=SubmissionState.ABSENT, charge_certainty=ChargeCertainty.NONE
            )
            await changes.recount(submission.job_id)

    async def _unresolved(self, conn: AsyncConnection, job_id: UUID, submission_id: UUID) -> tuple[Job, Submission]:
        """The job and its submission, whose result is not recorded yet.

        Raises:
            ClaimLost: the result is recorded, or the intent was never committed.
        """
        job, submission = await self._locked(conn, job_id, submission_id)
        unresolved = submission.state in {SubmissionState.SENDING, SubmissionState.UNKNOWN}
        if job.state not in SUBMITTED or not unresolved or submission.remote_id is not None:
            raise ClaimLost
        return job, submission

    async def _locked(self, conn: AsyncConnection, job_id: UUID, submission_id: UUID) -> tuple[Job, Submission]:
        job = await repository.lock(conn, job_id)
        submission = await submissions.get(conn, submission_id)
        if job is None or submission is None:
            raise ClaimLost
        return job, submission


def _name(submission: Submission) -> str:
    return encode(Prefix.SUBMISSION, submission.id)
