"""The submitter: buys films for the jobs whose turn it is, each at most once.

The intent is committed before a byte leaves (:mod:`app.jobs.engine.admission`); the request goes out once, within an
absolute deadline; what it ended in decides the next state (DESIGN §5). A lease that runs out means *unknown*, never
"again".
"""

import asyncio
from collections.abc import AsyncIterator

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.failpoints import Checkpoint, checkpoint
from app.infra.metrics import SUBMISSIONS
from app.infra.queue import Lane
from app.jobs import failures
from app.jobs.db import connections, submissions
from app.jobs.engine.admission import NOT_REACHED, Admission, Purchase
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.submit_results import Outcomes
from app.jobs.records import Claim
from app.jobs.states import State
from app.providers.base import Accepted, Rejected, SubmitOutcome, Unknown, Unsent
from app.providers.errors import Fault

#: Refusals that say something of the connection, and not of the order.
TROUBLE = frozenset({Fault.ACCOUNT, Fault.QUOTA, Fault.PROVIDER})

#: A request gets at least this share of its time-out: one that is cut short for our lateness would end in doubt.
LEAST_SHARE = 0.5

log = structlog.get_logger()


class Submitter:
    """Advances jobs in the `submit` lane: it buys, and it ends what waited past its deadline."""

    lane = Lane.SUBMIT

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)
        self._admission = Admission(bench)

    async def claim(self, limit: int) -> AsyncIterator[Claim | Purchase]:
        """At most ``limit`` items. A purchase is sent as soon as it is yielded, before the next is asked for."""
        expired = await self._bench.claim(self.lane, limit)
        for claim in expired:
            yield claim
        async for purchase in self._admission.admit(limit - len(expired)):
            yield purchase

    async def next_due(self) -> float | None:
        """Seconds until there may be something to do without a ring."""
        return await self._admission.next_due()

    async def advance(self, item: Claim | Purchase) -> None:
        """Buy one film, or end one job."""
        if isinstance(item, Purchase):
            await self._buy(item)
        else:
            await self._expire(item)

    async def _buy(self, purchase: Purchase) -> None:
        left = purchase.deadline - asyncio.get_running_loop().time()
        if left < LEAST_SHARE * self._bench.settings.submit_timeout:
            detail = f"{left:.1f} s were left to send it"
            log.warning("submission not sent in time", connection=purchase.connection, left=left)
            await persist(lambda: self._outcomes.not_sent_in_time(purchase.job_id, purchase.submission_id, detail))
            return
        provider = self._bench.registry.provider(purchase.connection)
        outcome = await provider.submit(purchase.call, purchase.deadline)
        await checkpoint(Checkpoint.SUBMIT_ANSWERED)
        SUBMISSIONS.labels(connection=purchase.connection, outcome=type(outcome).__name__.lower()).inc()
        await persist(lambda: self._record(purchase, outcome))
        try:
            await self._judge(purchase, outcome)
        except (SQLAlchemyError, OSError) as error:
            log.warning("health of a connection not noted", connection=purchase.connection, error=repr(error))

    async def _record(self, purchase: Purchase, outcome: SubmitOutcome) -> None:
        job_id, submission_id = purchase.job_id, purchase.submission_id
        match outcome:
            case Accepted():
                try:
                    await self._outcomes.accepted(job_id, submission_id, outcome)
                except submissions.TwinTookIt as error:
                    # A lost submission of an equal order was found in the list and took this record for its own: its
                    # true one is still there, and the resolver looks for it. Or the provider gave one id to two orders.
                    # Either way it accepted this one, whatever it lists.
                    await self._outcomes.unknown(job_id, submission_id, Unknown(str(error), outcome.raw, claimed=True))
            case Rejected():
                await self._outcomes.rejected(job_id, submission_id, outcome)
            case Unsent():
                log.warning("provider not reached", connection=purchase.connection, detail=outcome.detail)
                await self._outcomes.nothing_bought(job_id, submission_id, outcome.detail, NOT_REACHED)
            case Unknown():
                await self._outcomes.unknown(job_id, submission_id, outcome)

    async def _judge(self, purchase: Purchase, outcome: SubmitOutcome) -> None:
        """What the outcome says of the connection: a circuit breaker that all workers share."""
        name, settings = purchase.connection, self._bench.settings
        trouble = _trouble(outcome)
        if trouble is None and not purchase.failures and not isinstance(outcome, Rejected):
            return
        async with self._bench.database.begin() as connection:
            if trouble is not None:
                failures_in_a_row = await connections.note_failure(
                    connection,
                    name,
                    trouble,
                    known=purchase.failures,
                    break_after=settings.break_after,
                    pause=settings.break_pause,
                    longest=settings.longest_break,
                )
                if failures_in_a_row == settings.break_after:
                    log.error("connection closed to new jobs", connection=name, trouble=trouble)
            elif purchase.failures:
                await connections.note_success(connection, name)
            if isinstance(outcome, Rejected) and outcome.failure.retry_after is not None:
                pause = min(outcome.failure.retry_after.total_seconds(), settings.longest_break)
                await connections.close(connection, name, pause, outcome.failure.message)

    async def _expire(self, claim: Claim) -> None:
        """The job waited until its deadline."""
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.move(
                connection,
                claim.job_id,
                State.FAILED,
                from_=(State.QUEUED,),
                fence=claim.fence,
                error=failures.DEADLINE,
            )
        self._bench.bell.ring(Lane.DELIVER)


def _trouble(outcome: SubmitOutcome) -> str | None:
    """What is wrong with the connection, if anything is."""
    if isinstance(outcome, Unsent | Unknown):
        return outcome.detail
    if isinstance(outcome, Rejected) and outcome.failure.fault in TROUBLE:
        return f"{outcome.failure.message} {outcome.failure.detail}"
    return None
