"""The resolver: finds out whether a lost paid request was accepted. It looks; it never buys."""

from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy.exc import IntegrityError

from app.backoff import exponential
from app.ids import Prefix, encode
from app.jobs import failures, ledger, repository, schedule
from app.jobs.recorder import persist
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.jobs.workbench import Workbench
from app.providers.base import Absent, Found, Inconclusive, Lookup, Provider, Search
from app.queue import Lane

#: Look-ups that must all say "absent", and the pause between them.
LOOKUPS_NEEDED = 2
LOOKUP_PAUSE_SECONDS = 5
LONGEST_PAUSE_SECONDS = 60

log = structlog.get_logger()


class Resolver:
    """Advances jobs in the `confirm` lane."""

    lane = Lane.CONFIRM

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One look for the outcome of one submission."""
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            submission = await ledger.live_of(connection, claim.job_id)
            now = await repository.now(connection)
            owned = (
                await ledger.owned_ids(connection, submission.connection, submission.created_at) if submission else ()
            )
        if job is None or submission is None or job.state is not State.SUBMIT_UNKNOWN:
            return
        if submission.remote_id is not None:  # a late worker filled it in, and could not move the job
            await self._found(submission, Found(submission.remote_id))
            return
        provider = self._bench.registry.provider(submission.connection)
        visible_in = _visible_in(submission, provider, now)
        if visible_in > 0:
            await self._later(claim, visible_in)
            return
        outcome = await provider.find(
            Search(
                order=job.ordered.order(submission.upstream_model),
                ref=submission.id,
                earliest=submission.created_at,
                latest=submission.send_deadline,
                owned=frozenset(owned),
            )
        )
        log.info("looked for a lost submission", job=encode(Prefix.JOB, job.id), outcome=type(outcome).__name__)
        match outcome:
            case Found():
                await self._found(submission, outcome)
            case Absent():
                await self._absent(claim, job, submission)
            case Inconclusive():
                await self._inconclusive(claim, submission, provider, outcome, now)

    async def _found(self, submission: Submission, found: Found) -> None:
        provider = self._bench.registry.provider(submission.connection)

        async def write() -> None:
            await self._bench.recorder.accepted(
                self._bench.database,
                job_id=submission.job_id,
                submission_id=submission.id,
                remote_id=found.remote_id,
                cost_limit=None,
                bills_on=provider.traits.bills_on,
                next_in=0,
            )

        try:
            await persist(write)
        except IntegrityError:
            # Another lost submission of the same order took this record first; the next look excludes it.
            log.info(
                "the record found belongs to another submission", submission=encode(Prefix.SUBMISSION, submission.id)
            )
            return
        self._bench.bell.ring(Lane.POLL)

    async def _absent(self, claim: Claim, job: Job, submission: Submission) -> None:
        async with self._bench.database.begin() as connection:
            if submission.lookups + 1 < LOOKUPS_NEEDED:
                await ledger.change(connection, submission.id, lookups=submission.lookups + 1)
                await schedule.defer(connection, [(claim, LOOKUP_PAUSE_SECONDS)])
                return
            await ledger.end(
                connection,
                submission.id,
                SubmissionState.ABSENT,
                lookups=submission.lookups + 1,
                charge_certainty=ChargeCertainty.NONE.value,
            )
            await self._bench.recorder.move(
                connection,
                job.id,
                State.QUEUED,
                from_=(State.SUBMIT_UNKNOWN,),
                fence=claim.fence,
                notice="The provider holds no record of the lost request: it was not accepted. Trying again.",
            )
            await ledger.slot_freed(connection, submission.connection)
        self._bench.bell.ring(Lane.SUBMIT)

    async def _inconclusive(
        self, claim: Claim, submission: Submission, provider: Provider, outcome: Inconclusive, now: datetime
    ) -> None:
        waited = (now - submission.send_deadline).total_seconds()
        if provider.traits.lookup is not Lookup.NONE and waited < self._bench.settings.unknown_wait:
            async with self._bench.database.begin() as connection:
                # Absence must be seen twice running; this look saw nothing either way.
                await ledger.change(connection, submission.id, lookups=0, polls=submission.polls + 1)
                pause = exponential(submission.polls + 1, first=LOOKUP_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)
                await schedule.defer(connection, [(claim, pause)])
            return
        async with self._bench.database.begin() as connection:
            await ledger.end(
                connection,
                submission.id,
                SubmissionState.ABANDONED,
                charge_certainty=ChargeCertainty.POSSIBLE.value,
                failure=failures.UNKNOWN,
                detail=f"{submission.detail or ''}; {outcome.detail}"[:2000],
            )
            await self._bench.recorder.move(
                connection,
                submission.job_id,
                State.FAILED,
                from_=(State.SUBMIT_UNKNOWN,),
                fence=claim.fence,
                error=failures.UNKNOWN,
            )
            await ledger.slot_freed(connection, submission.connection)
        self._bench.bell.ring(Lane.SUBMIT, Lane.DELIVER)

    async def _later(self, claim: Claim, delay: float) -> None:
        async with self._bench.database.begin() as connection:
            await schedule.defer(connection, [(claim, delay)])


def _visible_in(submission: Submission, provider: Provider, now: datetime) -> float:
    """Seconds until the provider must show the record, had it accepted the request at the last moment."""
    return (submission.send_deadline + provider.traits.visibility_delay - now).total_seconds()
