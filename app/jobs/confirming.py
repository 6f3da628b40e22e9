"""The resolver: finds out whether a lost paid request was accepted. It looks; it never buys."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

import structlog

from app.backoff import exponential
from app.ids import Prefix, encode
from app.jobs import ledger, repository, schedule
from app.jobs.outcomes import Outcomes, persist
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import State
from app.jobs.workbench import Workbench
from app.providers.base import Absent, Accepted, Found, Inconclusive, Lookup, Provider, Search
from app.providers.registry import UnknownConnection
from app.queue import Lane

#: Look-ups that must all say "absent", and the pause between them.
LOOKUPS_NEEDED = 2
LOOKUP_PAUSE_SECONDS = 5
LONGEST_PAUSE_SECONDS = 60
ABSENT = "The provider holds no record of the lost request: it was not accepted. Trying again."

log = structlog.get_logger()


class Resolver:
    """Advances jobs in the `confirm` lane."""

    lane = Lane.CONFIRM

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One look for the outcome of one submission."""
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            submission = await ledger.live_of(connection, claim.job_id)
            now = await repository.now(connection)
        if job is None or submission is None or job.state is not State.SUBMIT_UNKNOWN:
            return
        try:
            provider = self._bench.registry.provider(submission.connection)
        except UnknownConnection as error:
            if now >= job.deadline_at:
                await self._outcomes.unprovable(job.id, submission.id, str(error))
            else:
                await self._later(claim, LONGEST_PAUSE_SECONDS)
            return
        visible_in = _visible_in(submission, provider, now)
        if visible_in > 0:
            await self._later(claim, visible_in)
            return
        async with self._bench.holding([claim]):
            outcome = await provider.find(_search(job, submission), self._owned(submission))
        log.info("looked for a lost submission", job=encode(Prefix.JOB, job.id), outcome=type(outcome).__name__)
        match outcome:
            case Found():
                await self._found(submission, outcome)
            case Absent():
                await self._absent(claim, submission)
            case Inconclusive():
                await self._inconclusive(claim, submission, provider, outcome, now)

    def _owned(self, submission: Submission) -> Callable[[Collection[str]], Awaitable[frozenset[str]]]:
        async def owned(remote_ids: Collection[str]) -> frozenset[str]:
            async with self._bench.database.read() as connection:
                return await ledger.owned_of(connection, submission.connection, remote_ids)

        return owned

    async def _found(self, submission: Submission, found: Found) -> None:
        try:
            await persist(lambda: self._outcomes.accepted(submission.job_id, submission.id, Accepted(found.remote_id)))
        except ledger.TwinTookIt:
            # Another lost submission of an equal order took this record first; the next look excludes it.
            log.info("the record found belongs to a twin", submission=encode(Prefix.SUBMISSION, submission.id))

    async def _absent(self, claim: Claim, submission: Submission) -> None:
        if submission.lookups + 1 >= LOOKUPS_NEEDED:
            await self._outcomes.nothing_bought(submission.job_id, submission.id, submission.detail or "", ABSENT)
            return
        async with self._bench.database.begin() as connection:
            await ledger.change(connection, submission.id, lookups=submission.lookups + 1)
            await schedule.defer(connection, [(claim, LOOKUP_PAUSE_SECONDS)], only_mine=True)

    async def _inconclusive(
        self, claim: Claim, submission: Submission, provider: Provider, outcome: Inconclusive, now: datetime
    ) -> None:
        waited = (now - submission.send_deadline).total_seconds()
        if provider.traits.lookup is Lookup.NONE or waited >= self._bench.settings.unknown_wait:
            await self._outcomes.unprovable(submission.job_id, submission.id, outcome.detail)
            return
        async with self._bench.database.begin() as connection:
            # Absence must be seen twice running; this look saw nothing either way.
            await ledger.change(connection, submission.id, lookups=0, polls=submission.polls + 1)
            pause = exponential(submission.polls + 1, first=LOOKUP_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)
            await schedule.defer(connection, [(claim, pause)], only_mine=True)

    async def _later(self, claim: Claim, delay: float) -> None:
        async with self._bench.database.begin() as connection:
            await schedule.defer(connection, [(claim, delay)])


def _search(job: Job, submission: Submission) -> Search:
    return Search(
        order=job.ordered.order(submission.upstream_model),
        ref=submission.id,
        earliest=submission.created_at,
        latest=submission.send_deadline,
    )


def _visible_in(submission: Submission, provider: Provider, now: datetime) -> float:
    """Seconds until the provider must show the record, had it accepted the request at the last moment."""
    return (submission.send_deadline + provider.traits.visibility_delay - now).total_seconds()
