"""The resolver: finds out whether a lost paid request was accepted.

How depends on what the provider offers, best first: a callback named the record; the same bytes may be sent again; the
record carries our reference; the provider lists its records. Where there is nothing of that, it waits for a callback
that may still come, and then says so: ``upstream_outcome_unknown`` (DESIGN §5, "Resolving an unknown").
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from app.backoff import exponential
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs.db import repository, schedule, submissions
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.finder import Finder
from app.jobs.engine.submit_results import Outcomes
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import State
from app.providers.base import (
    Absent,
    Accepted,
    FindOutcome,
    Found,
    Inconclusive,
    Lookup,
    Provider,
    Unknown,
)

#: Look-ups that must all say "absent", one after the other.
LOOKUPS_NEEDED = 2
LONGEST_PAUSE_SECONDS = 60
ABSENT = "The provider holds no record of the lost request: it was not accepted. Trying again."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Case:
    """A lost submission of a claimed job; ``now`` is by the database's clock."""

    claim: Claim
    job: Job
    submission: Submission
    now: datetime

    @property
    def left(self) -> float:
        """Seconds until the job's deadline."""
        return (self.job.deadline_at - self.now).total_seconds()

    @property
    def waited(self) -> float:
        """Seconds since the request can last have been accepted."""
        return (self.now - self.submission.send_deadline).total_seconds()


class Resolver:
    """Advances jobs in the `confirm` lane."""

    lane = Lane.CONFIRM

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)
        self._finder = Finder(bench)

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One look for the outcome of one submission."""
        await checkpoint(Checkpoint.CONFIRM_CLAIMED)
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            submission = await submissions.live_of(connection, claim.job_id)
            now = await repository.now(connection)
        if job is None or submission is None:
            return
        if job.state is State.SUBMITTING:
            gone = Unknown("the worker that was sending did not report back")
            await self._outcomes.unknown(job.id, submission.id, gone, fence=claim.fence)
        elif job.state is State.SUBMIT_UNKNOWN:
            await self._resolve(Case(claim, job, submission, now))

    async def _resolve(self, case: Case) -> None:
        provider = self._bench.provider(case.submission)
        if provider is None:
            await self._later(case, LONGEST_PAUSE_SECONDS, "its connection is no longer configured")
            return
        async with self._bench.holding([case.claim]):
            outcome = await self._look(case, provider)
        if isinstance(outcome, float):
            await self._later(case, outcome, "the provider need not show it yet")
            return
        await checkpoint(Checkpoint.CONFIRM_ANSWERED)
        log.info("looked for a lost submission", job=encode(Prefix.JOB, case.job.id), outcome=type(outcome).__name__)
        match outcome:
            case Found():
                await self._found(case.submission, outcome)
            case Absent():
                await self._absent(case)
            case Inconclusive():
                await self._inconclusive(case, provider, outcome)

    async def _look(self, case: Case, provider: Provider) -> FindOutcome | float:
        """What a look came to; or the seconds until one can prove anything."""
        submission = case.submission
        hinted = await self._finder.hinted(provider, submission)
        if isinstance(hinted, Found):
            return hinted
        visible_in = (submission.send_deadline + provider.traits.visibility_delay - case.now).total_seconds()
        if visible_in > 0:
            return visible_in
        if provider.traits.lookup is Lookup.REPLAY:
            return await self._replay(provider, case.job, submission)
        return await self._finder.search(provider, case.job, submission, hinted, case.now)

    async def _replay(self, provider: Provider, job: Job, submission: Submission) -> FindOutcome:
        """Send the same bytes again: the provider knows them by their key, and answers as it did the first time."""
        order = job.choice(submission.model).ordered.order(submission.upstream_model)
        call = self._bench.paid_call(provider, submission.connection, order, submission.id)
        if hashlib.sha256(call.body).digest() != submission.body_hash:
            return Inconclusive("the request cannot be made again byte for byte")
        deadline = asyncio.get_running_loop().time() + self._bench.settings.submit_timeout
        outcome = await provider.submit(call, deadline)
        # A refusal may be about the second request: it proves nothing about the first.
        return Found(outcome.remote_id) if isinstance(outcome, Accepted) else Inconclusive(f"sent again: {outcome}")

    async def _found(self, submission: Submission, found: Found) -> None:
        try:
            await persist(lambda: self._outcomes.accepted(submission.job_id, submission.id, Accepted(found.remote_id)))
        except submissions.TwinTookIt:
            # Another lost submission of an equal order took this record first; the next look excludes it.
            log.info("the record found belongs to a twin", submission=encode(Prefix.SUBMISSION, submission.id))

    async def _absent(self, case: Case) -> None:
        submission = case.submission
        async with self._bench.database.begin() as connection:
            absent_for = await submissions.mark_missing(connection, submission.id)
            # Whatever woke us, a callback or a cancel: two looks count as two only with the pause between them.
            pause = max(0, self._bench.settings.lookup_pause - absent_for)
            proven = submission.lookups + 1 >= LOOKUPS_NEEDED and not pause
            if not proven and case.left > 0:
                await submissions.change(connection, submission.id, lookups=submission.lookups + 1)
                await schedule.defer(connection, [(case.claim, min(pause, case.left))], only_mine=True)
        if proven:
            detail = submission.detail or ""
            await self._outcomes.nothing_bought(submission.job_id, submission.id, detail, ABSENT, hint=submission.hint)
        elif case.left <= 0:
            await self._unprovable(case, "it was absent once, which is no proof")

    async def _inconclusive(self, case: Case, provider: Provider, outcome: Inconclusive) -> None:
        submission, settings = case.submission, self._bench.settings
        hopeless = provider.traits.lookup is Lookup.NONE and not self._may_call_back(provider, submission)
        if hopeless or case.waited >= settings.unknown_wait or case.left <= 0:
            await self._unprovable(case, outcome.detail)
            return
        async with self._bench.database.begin() as connection:
            # Absence must be seen twice running; this look saw nothing either way.
            seen = {"lookups": 0, "missing_since": None, "polls": submission.polls + 1}
            await submissions.change(connection, submission.id, **seen)
            first = settings.lookup_pause
            pause = exponential(submission.polls + 1, first=first, longest=max(first, LONGEST_PAUSE_SECONDS))
            await schedule.defer(connection, [(case.claim, min(pause, case.left))], only_mine=True)

    async def _unprovable(self, case: Case, why: str) -> None:
        detail = f"the job's deadline passed: {why}" if case.left <= 0 else why
        await self._outcomes.unprovable(case.job.id, case.submission.id, detail)

    def _may_call_back(self, provider: Provider, submission: Submission) -> bool:
        return provider.traits.callbacks and self._bench.callbacks.of(submission.connection, submission.id) is not None

    async def _later(self, case: Case, delay: float, why: str) -> None:
        """Look again after a delay, or at the job's deadline; past it the outcome stays unknown."""
        if case.left <= 0:
            await self._unprovable(case, why)
            return
        async with self._bench.database.begin() as connection:
            await schedule.defer(connection, [(case.claim, min(delay, case.left))])
