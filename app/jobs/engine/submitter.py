"""The submitter: sends the paid requests of admitted jobs, each at most once.

The intent is committed before a byte leaves (:mod:`app.jobs.engine.admission`); the request is sent once, within an
absolute deadline; its result decides the next state (docs/architecture.md, "States and transitions"). An expired lease
means *unknown*, never "send again".
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.failpoints import Failpoint, failpoint
from app.infra.metrics import SUBMISSIONS
from app.infra.queue import Lane, Step
from app.jobs import errors
from app.jobs.db import connection_health, submissions
from app.jobs.engine.admission import NOT_REACHED, Admission, AdmittedSubmission
from app.jobs.engine.context import EngineContext, persist
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.records import Claim
from app.jobs.states import State
from app.media.errors import StorageError
from app.providers.base import Accepted, Provider, Rejected, SubmitOutcome, Unknown, Unsent
from app.providers.errors import Fault
from app.providers.transport import Call

#: Faults of refusals that concern the connection and not the request.
CONNECTION_FAULTS = frozenset({Fault.ACCOUNT, Fault.QUOTA, Fault.PROVIDER})

INPUTS_NOT_READ = "The gateway could not read the inputs of the job; nothing was sent. Retrying."
#: A request is sent only with at least this share of its time-out left: a shortened one might end as unknown.
LEAST_SHARE = 0.5

log = structlog.get_logger()


class Submitter(Step[Claim | AdmittedSubmission]):
    """Advances jobs in the `submit` lane: submits admitted jobs, and fails jobs that waited past their deadline."""

    lane = Lane.SUBMIT

    def __init__(
        self, context: EngineContext, admission: Admission, submit_results: SubmitResults, *, limit: int
    ) -> None:
        self._context = context
        self._admission = admission
        self._submit_results = submit_results
        self.limit = limit

    async def claim(self, limit: int) -> AsyncIterator[Claim | AdmittedSubmission]:
        """At most ``limit`` items. An admitted submission is sent as soon as it is yielded."""
        expired = await self._context.claim(self.lane, limit)
        for claim in expired:
            yield claim
        async for admitted in self._admission.admit(limit - len(expired)):
            yield admitted

    async def next_due(self) -> float | None:
        """Seconds until a queued job reaches its deadline, or may be submitted."""
        due = (await self._context.next_due(self.lane), await self._admission.next_due())
        return min((seconds for seconds in due if seconds is not None), default=None)

    async def advance(self, item: Claim | AdmittedSubmission) -> None:
        """Send one submission, or fail one expired job."""
        if isinstance(item, AdmittedSubmission):
            await self._submit(item)
        else:
            await self._expire(item)

    async def _submit(self, admitted: AdmittedSubmission) -> None:
        left = admitted.deadline - asyncio.get_running_loop().time()
        if left < LEAST_SHARE * self._context.settings.submit_timeout:
            detail = f"only {left:.1f} s were left to send it"
            log.warning("submission not sent in time", connection=admitted.connection, left=left)
            await persist(
                lambda: self._submit_results.not_sent_in_time(admitted.job_id, admitted.submission_id, detail)
            )
            return
        provider = self._context.registry.provider(admitted.connection)
        try:
            async with self._call(admitted, provider) as call:
                result = await provider.submit(call, admitted.deadline)
        except StorageError as error:
            log.error("inputs not read", connection=admitted.connection, error=error.detail)  # noqa: TRY400
            detail = f"its inputs could not be read: {error.message}"
            await persist(
                lambda: self._submit_results.absent(admitted.job_id, admitted.submission_id, detail, INPUTS_NOT_READ)
            )
            return
        await failpoint(Failpoint.SUBMIT_ANSWERED)
        SUBMISSIONS.labels(connection=admitted.connection, outcome=type(result).__name__.lower()).inc()
        await persist(lambda: self._record(admitted, result))
        try:
            await self._update_health(admitted, result)
        except (SQLAlchemyError, OSError) as error:
            log.warning("connection health not updated", connection=admitted.connection, error=repr(error))

    @asynccontextmanager
    async def _call(self, admitted: AdmittedSubmission, provider: Provider) -> AsyncIterator[Call]:
        """The request, with the inputs that go into its body; few of those are in memory at once.

        Raises:
            StorageError: an input cannot be read; nothing was sent.
        """
        if not admitted.request.unloaded:
            yield admitted.call
            return
        inputs = self._context.inputs
        async with inputs.loading:
            request = await inputs.loaded(admitted.request)
            yield self._context.paid_call(provider, admitted.connection, request, admitted.submission_id)

    async def _record(self, admitted: AdmittedSubmission, result: SubmitOutcome) -> None:
        job_id, submission_id = admitted.job_id, admitted.submission_id
        match result:
            case Accepted():
                try:
                    await self._submit_results.accepted(job_id, submission_id, result)
                except submissions.RemoteIdAlreadyClaimed as error:
                    # The remote job was assigned to a lost submission of an equal request; that one's own remote job is
                    # still listed, and the resolver looks for it. Or the provider gave one id to two requests. Either
                    # way it accepted this request.
                    await self._submit_results.unknown(
                        job_id, submission_id, Unknown(str(error), result.raw, claimed=True)
                    )
            case Rejected():
                await self._submit_results.rejected(job_id, submission_id, result)
            case Unsent():
                log.warning("provider unreachable", connection=admitted.connection, detail=result.detail)
                await self._submit_results.absent(job_id, submission_id, result.detail, NOT_REACHED)
            case Unknown():
                await self._submit_results.unknown(job_id, submission_id, result)

    async def _update_health(self, admitted: AdmittedSubmission, result: SubmitOutcome) -> None:
        """Update the connection's circuit breaker, which all workers share."""
        name, settings = admitted.connection, self._context.settings
        trouble = _trouble(result)
        if trouble is None and not admitted.failures and not isinstance(result, Rejected):
            return
        async with self._context.database.begin() as conn:
            if trouble is not None:
                failures_in_a_row = await connection_health.record_failure(
                    conn,
                    name,
                    trouble,
                    known=admitted.failures,
                    break_after=settings.break_after,
                    pause=settings.break_pause,
                    longest=settings.longest_break,
                )
                if failures_in_a_row == settings.break_after:
                    log.error("connection closed to new jobs", connection=name, trouble=trouble)
            elif admitted.failures:
                await connection_health.record_success(conn, name)
            if isinstance(result, Rejected) and result.failure.retry_after is not None:
                pause = min(result.failure.retry_after.total_seconds(), settings.longest_break)
                await connection_health.close(conn, name, pause, result.failure.message)

    async def _expire(self, claim: Claim) -> None:
        """Fail a job that waited until its deadline."""
        async with self._context.transitions.begin() as changes:
            await changes.move(
                claim.job_id,
                State.FAILED,
                from_=(State.QUEUED,),
                fence=claim.fence,
                error=errors.DEADLINE,
            )


def _trouble(result: SubmitOutcome) -> str | None:
    """What is wrong with the connection; None if nothing is."""
    if isinstance(result, Unsent | Unknown):
        return result.detail
    if isinstance(result, Rejected) and result.failure.fault in CONNECTION_FAULTS:
        return f"{result.failure.message} {result.failure.detail}"
    return None
