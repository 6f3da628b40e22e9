"""The resolver: finds out whether a lost paid request was accepted.

How depends on what the provider offers, best first: a callback named the record; the same bytes may be sent again; the
record carries our reference; the provider lists its records. Where there is nothing of that, it waits for a callback
that may still come, and then says so: ``upstream_outcome_unknown`` (DESIGN §5, "Resolving an unknown").
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

import structlog

from app.backoff import exponential
from app.checkpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.jobs import ledger, repository, schedule
from app.jobs.outcomes import Outcomes
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import State
from app.jobs.workbench import Workbench, persist
from app.providers.base import (
    Absent,
    Accepted,
    FindOutcome,
    Found,
    Inconclusive,
    Lookup,
    Missing,
    Provider,
    Search,
    Unknown,
    Unreadable,
)
from app.queue import Lane

#: Look-ups that must all say "absent", one after the other.
LOOKUPS_NEEDED = 2
LONGEST_PAUSE_SECONDS = 60
ABSENT = "The provider holds no record of the lost request: it was not accepted. Trying again."

log = structlog.get_logger()


class Resolver:
    """Advances jobs in the `confirm` lane."""

    lane = Lane.CONFIRM

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)
        self.finder = Finder(bench)

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One look for the outcome of one submission."""
        await checkpoint(Checkpoint.CONFIRM_CLAIMED)
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            submission = await ledger.live_of(connection, claim.job_id)
            now = await repository.now(connection)
        if job is None or submission is None:
            return
        if job.state is State.SUBMITTING:
            gone = Unknown("the worker that was sending did not report back")
            await self._outcomes.unknown(job.id, submission.id, gone, fence=claim.fence)
        elif job.state is State.SUBMIT_UNKNOWN:
            await self._resolve(claim, job, submission, now)

    async def _resolve(self, claim: Claim, job: Job, submission: Submission, now: datetime) -> None:
        provider = self._bench.provider(submission)
        if provider is None:
            if now >= job.deadline_at:
                detail = f"connections.{submission.connection} is no longer configured"
                await self._outcomes.unprovable(job.id, submission.id, detail)
            else:
                await self._later(claim, LONGEST_PAUSE_SECONDS)
            return
        async with self._bench.holding([claim]):
            outcome = await self._look(provider, job, submission, _visible_in(submission, provider, now))
        if isinstance(outcome, float):
            await self._later(claim, outcome)
            return
        await checkpoint(Checkpoint.CONFIRM_ANSWERED)
        log.info("looked for a lost submission", job=encode(Prefix.JOB, job.id), outcome=type(outcome).__name__)
        match outcome:
            case Found():
                await self._found(submission, outcome)
            case Absent():
                await self._absent(claim, submission)
            case Inconclusive():
                await self._inconclusive(claim, submission, provider, outcome, now)

    async def _look(
        self, provider: Provider, job: Job, submission: Submission, visible_in: float
    ) -> FindOutcome | float:
        """What a look came to; or the seconds until one can prove anything."""
        hinted = await self.finder.hinted(provider, submission)
        if isinstance(hinted, Found):
            return hinted
        if visible_in > 0:
            return visible_in
        if provider.traits.lookup is Lookup.REPLAY:
            return await self._replay(provider, job, submission)
        return await self.finder.search(provider, job, submission, hinted)

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
        except ledger.TwinTookIt:
            # Another lost submission of an equal order took this record first; the next look excludes it.
            log.info("the record found belongs to a twin", submission=encode(Prefix.SUBMISSION, submission.id))

    async def _absent(self, claim: Claim, submission: Submission) -> None:
        async with self._bench.database.begin() as connection:
            absent_for = await ledger.mark_missing(connection, submission.id)
            # Whatever woke us, a callback or a cancel: two looks count as two only with the pause between them.
            left = max(0, self._bench.settings.lookup_pause - absent_for)
            proven = submission.lookups + 1 >= LOOKUPS_NEEDED and not left
            if not proven:
                await ledger.change(connection, submission.id, lookups=submission.lookups + 1)
                await schedule.defer(connection, [(claim, left)], only_mine=True)
        if proven:
            detail = submission.detail or ""
            await self._outcomes.nothing_bought(submission.job_id, submission.id, detail, ABSENT, hint=submission.hint)

    async def _inconclusive(
        self, claim: Claim, submission: Submission, provider: Provider, outcome: Inconclusive, now: datetime
    ) -> None:
        waited = (now - submission.send_deadline).total_seconds()
        hopeless = provider.traits.lookup is Lookup.NONE and not self._may_call_back(provider, submission)
        if hopeless or waited >= self._bench.settings.unknown_wait:
            await self._outcomes.unprovable(submission.job_id, submission.id, outcome.detail)
            return
        async with self._bench.database.begin() as connection:
            # Absence must be seen twice running; this look saw nothing either way.
            seen = {"lookups": 0, "missing_since": None, "polls": submission.polls + 1}
            await ledger.change(connection, submission.id, **seen)
            first = self._bench.settings.lookup_pause
            pause = exponential(submission.polls + 1, first=first, longest=max(first, LONGEST_PAUSE_SECONDS))
            await schedule.defer(connection, [(claim, pause)], only_mine=True)

    def _may_call_back(self, provider: Provider, submission: Submission) -> bool:
        return provider.traits.callbacks and self._bench.callbacks.of(submission.connection, submission.id) is not None

    async def _later(self, claim: Claim, delay: float) -> None:
        async with self._bench.database.begin() as connection:
            await schedule.defer(connection, [(claim, delay)])


class Finder:
    """Looks for the record of a submission, and buys nothing."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def hinted(self, provider: Provider, submission: Submission) -> Found | Inconclusive | None:
        """What the provider itself says of the record that a callback named; None: it has none that may be ours."""
        if submission.hint is None or await self._owned(submission)([submission.hint]):
            return None  # another submission's record is none of this one's, whoever named it
        # The token in the URL vouches for the callback; that there is such a record only the provider can say.
        read = await provider.poll(submission.hint)
        if isinstance(read, Unreadable):
            return Inconclusive(f"a callback named {submission.hint}, and {read.detail}")
        return None if isinstance(read, Missing) else Found(submission.hint)

    async def search(
        self, provider: Provider, job: Job, submission: Submission, hinted: Inconclusive | None
    ) -> FindOutcome:
        """By the provider's own search: our reference, or its list.

        ``hinted`` is a record that was named and cannot be read just now: it stands against an absence.
        """
        outcome = await provider.find(_search(job, submission), self._owned(submission))
        return hinted if hinted is not None and isinstance(outcome, Absent) else outcome

    def _owned(self, submission: Submission) -> Callable[[Collection[str]], Awaitable[frozenset[str]]]:
        async def owned(remote_ids: Collection[str]) -> frozenset[str]:
            async with self._bench.database.read() as connection:
                return await ledger.owned_of(connection, submission.connection, remote_ids)

        return owned


def _search(job: Job, submission: Submission) -> Search:
    return Search(
        order=job.choice(submission.model).ordered.order(submission.upstream_model),
        ref=submission.id,
        earliest=submission.created_at,
        latest=submission.send_deadline,
    )


def _visible_in(submission: Submission, provider: Provider, now: datetime) -> float:
    """Seconds until the provider must show the record, had it accepted the request at the last moment."""
    return (submission.send_deadline + provider.traits.visibility_delay - now).total_seconds()
