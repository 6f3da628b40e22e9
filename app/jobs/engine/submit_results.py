"""What became of a paid request, written down by whoever found out, and however late: evidence needs no fence.

Every method takes the job's row lock first, then looks where the job and the submission stand *now*. So a worker that
was asleep past its lease, a resolver and a repeated write all come to the same end.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.db import NOW
from app.infra.queue import Lane
from app.jobs import billing, failures
from app.jobs.db import repository, submissions
from app.jobs.engine.context import Workbench
from app.jobs.engine.requeue import Turns
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.providers.base import Accepted, Rejected, Unknown

DETAIL_CHARACTERS = 2000
DELAYED = "The gateway was too slow to send the request; nothing was sent. Trying again at once."

BUYING = (State.SUBMITTING, State.SUBMIT_UNKNOWN)

log = structlog.get_logger()


class Outcomes:
    """Records what became of submissions."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._turns = Turns(bench)

    async def accepted(self, job_id: UUID, submission_id: UUID, outcome: Accepted) -> None:
        """The provider holds the job.

        Raises:
            TwinTookIt: the remote id belongs to another submission, of an equal order.
        """
        async with self._bench.database.begin() as connection:
            job, submission = await self._now(connection, job_id, submission_id)
            if submission.remote_id is not None:
                if submission.remote_id != outcome.remote_id:
                    log.error("a submission has two remote ids", submission=_name(submission), other=outcome.remote_id)
                return
            await submissions.claim_remote_id(connection, submission, outcome.remote_id)
            bills_on = self._bench.bills_on(submission.connection)
            live = await submissions.live_of(connection, job_id)
            ours = live is not None and live.id == submission.id
            if (job.state in BUYING and ours) or (job.state is State.QUEUED and live is None):
                await submissions.accept(connection, submission_id, outcome, billing.of_acceptance(bills_on))
                # A callback that came before we knew the record may have been its last.
                called_back = submission.hint is not None
                await self._bench.recorder.move(
                    connection,
                    job_id,
                    State.RUNNING,
                    from_=(*BUYING, State.QUEUED),
                    fence=None,
                    next_in=0 if called_back else self._bench.poll_interval(submission.connection),
                    started_at=NOW,
                    model_used=submission.model,
                )
            else:
                # The job has ended, or was bought anew after a proof of absence that was none: the money still counts.
                await submissions.accept_late(connection, submission_id, outcome, billing.of_late_acceptance(bills_on))
                await self._bench.watch(connection, submission)
                await self._bench.recorder.recount(connection, job_id)
                log.error("accepted after the job had moved on", submission=_name(submission), job_state=job.state)
            await checkpoint(Checkpoint.SUBMIT_RECORDED)
        self._bench.bell.ring(Lane.POLL, Lane.WATCH)

    async def rejected(self, job_id: UUID, submission_id: UUID, outcome: Rejected) -> None:
        """The provider refused in its own words: nothing was bought."""
        failure = outcome.failure
        async with self._bench.database.begin() as connection:
            job, _ = await self._still_buying(connection, job_id, submission_id)
            await submissions.end(
                connection,
                submission_id,
                SubmissionState.REJECTED,
                charge_certainty=ChargeCertainty.NONE.value,
                failure=failures.of_provider(failure),
                detail=failure.detail[:DETAIL_CHARACTERS],
                raw=failure.raw,
            )
            await self._turns.go_on(
                connection,
                job,
                from_=BUYING,
                fence=None,
                error=failures.of_provider(failure),
                notice=f"{failure.message} Trying again.",
                at_least=failure.retry_after.total_seconds() if failure.retry_after else 0,
            )
            await checkpoint(Checkpoint.SUBMIT_RECORDED)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER)

    async def not_sent_in_time(self, job_id: UUID, submission_id: UUID, detail: str) -> None:
        """We were too slow, and sent nothing: that counts as no try, and the job keeps its turn."""
        await self.nothing_bought(job_id, submission_id, detail, DELAYED, failure=failures.NOT_SENT_IN_TIME)

    async def nothing_bought(
        self,
        job_id: UUID,
        submission_id: UUID,
        detail: str,
        notice: str,
        *,
        hint: str | None = None,
        failure: Mapping[str, Any] | None = None,
    ) -> None:
        """Proven: no byte was sent, or the provider holds no record of it.

        ``hint`` is what was looked into. A callback that came meanwhile is evidence, and stands against the proof.
        ``failure`` is what the ledger says of it.
        """
        async with self._bench.database.begin() as connection:
            job, submission = await self._still_buying(connection, job_id, submission_id)
            if submission.hint != hint:
                raise Overtaken
            await submissions.end(
                connection,
                submission_id,
                SubmissionState.ABSENT,
                charge_certainty=ChargeCertainty.NONE.value,
                missing_since=None,
                failure=failure,
                detail=detail[:DETAIL_CHARACTERS],
            )
            error = failure or failures.UNREACHABLE
            await self._turns.go_on(connection, job, from_=BUYING, fence=None, error=error, notice=notice)
            await checkpoint(Checkpoint.SUBMIT_RECORDED)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER)

    async def unknown(self, job_id: UUID, submission_id: UUID, outcome: Unknown, *, fence: int | None = None) -> None:
        """It may or may not have been accepted: the resolver's from here on. ``fence``: of a claim that must last."""
        async with self._bench.database.begin() as connection:
            _, submission = await self._still_buying(connection, job_id, submission_id)
            if submission.state is not SubmissionState.SENDING:
                return
            await submissions.change(
                connection,
                submission_id,
                state=SubmissionState.UNKNOWN.value,
                detail=outcome.detail[:DETAIL_CHARACTERS],
                raw=outcome.raw,
                accepted_at=NOW if outcome.claimed else None,
            )
            await self._bench.recorder.move(
                connection,
                job_id,
                State.SUBMIT_UNKNOWN,
                from_=(State.SUBMITTING,),
                fence=fence,
                notice="The provider's answer was lost. Finding out whether it accepted the job, before anything else.",
            )
            await checkpoint(Checkpoint.SUBMIT_RECORDED)
        log.warning("submission outcome unknown", submission=_name(submission), detail=outcome.detail)
        self._bench.bell.ring(Lane.CONFIRM)

    async def unprovable(self, job_id: UUID, submission_id: UUID, detail: str) -> None:
        """Nothing can prove what became of it (any more): the decision to buy again is the caller's.

        The submission stays watched: the truth may still come.
        """
        async with self._bench.database.begin() as connection:
            _, submission = await self._still_buying(connection, job_id, submission_id)
            await submissions.end(
                connection,
                submission_id,
                SubmissionState.ABANDONED,
                charge_certainty=billing.of_doubt(self._bench.bills_on(submission.connection)).value,
                failure=failures.UNKNOWN,
                lookups=0,
                missing_since=None,
                detail=f"{submission.detail or ''}; {detail}"[:DETAIL_CHARACTERS],
            )
            await self._bench.watch(connection, submission)
            await self._bench.recorder.move(
                connection, job_id, State.FAILED, from_=(State.SUBMIT_UNKNOWN,), fence=None, error=failures.UNKNOWN
            )
            await checkpoint(Checkpoint.SUBMIT_RECORDED)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER, Lane.WATCH)

    async def never_bought(self, submission: Submission) -> None:
        """Proven after the job had ended: it was not accepted, so it cost nothing."""
        async with self._bench.database.begin() as connection:
            _, now = await self._now(connection, submission.job_id, submission.id)
            meanwhile = now.remote_id is not None or now.hint != submission.hint
            if now.state is not SubmissionState.ABANDONED or meanwhile:
                raise Overtaken
            await submissions.change(
                connection,
                submission.id,
                state=SubmissionState.ABSENT.value,
                charge_certainty=ChargeCertainty.NONE.value,
            )
            await self._bench.recorder.recount(connection, submission.job_id)

    async def _still_buying(
        self, connection: AsyncConnection, job_id: UUID, submission_id: UUID
    ) -> tuple[Job, Submission]:
        """The job and the submission whose outcome it waits for.

        Raises:
            Overtaken: its outcome is known already, or its intent was never committed.
        """
        job, submission = await self._now(connection, job_id, submission_id)
        unresolved = submission.state in {SubmissionState.SENDING, SubmissionState.UNKNOWN}
        if job.state not in BUYING or not unresolved or submission.remote_id is not None:
            raise Overtaken
        return job, submission

    async def _now(self, connection: AsyncConnection, job_id: UUID, submission_id: UUID) -> tuple[Job, Submission]:
        job = await repository.lock(connection, job_id)
        submission = await submissions.get(connection, submission_id)
        if job is None or submission is None:
            raise Overtaken
        return job, submission


def _name(submission: Submission) -> str:
    return encode(Prefix.SUBMISSION, submission.id)
