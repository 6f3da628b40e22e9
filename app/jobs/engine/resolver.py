"""The resolver: determines whether a paid request whose reply was lost was accepted.

The method depends on what the provider offers, best first: a callback named the remote job; the same bytes may be sent
again; the remote job carries our reference; the provider lists its remote jobs. Without any of these the resolver waits
for a callback, then fails the job with ``upstream_outcome_unknown`` (docs/architecture.md, "Resolving an unknown").
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime

import structlog

from app.backoff import exponential
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs.db import repository, schedule, submissions
from app.jobs.engine.context import EngineContext, ScheduledStep, persist
from app.jobs.engine.finder import Finder
from app.jobs.engine.submit_results import SubmitResults
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

#: Number of consecutive look-ups that must find nothing.
LOOKUPS_NEEDED = 2
LONGEST_PAUSE_SECONDS = 60
ABSENT = "The provider has no remote job for the lost request: it was not accepted. Retrying."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UnresolvedSubmission:
    """A submission whose result is unknown, with its claimed job; ``now`` is the database's time."""

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
        """Seconds since the last moment at which the request can have been accepted."""
        return (self.now - self.submission.send_deadline).total_seconds()


class Resolver(ScheduledStep):
    """Advances jobs in the `confirm` lane."""

    lane = Lane.RESOLVE

    def __init__(self, context: EngineContext, finder: Finder, submit_results: SubmitResults, *, limit: int) -> None:
        self._context = context
        self._finder = finder
        self._submit_results = submit_results
        self.limit = limit

    async def advance(self, claim: Claim) -> None:
        """Look up the result of one submission once."""
        await failpoint(Failpoint.CONFIRM_CLAIMED)
        async with self._context.database.read() as conn:
            job = await repository.get(conn, claim.job_id)
            submission = await submissions.live_of(conn, claim.job_id)
            now = await repository.now(conn)
        if job is None or submission is None:
            return
        if job.state is State.SUBMITTING:
            lost = Unknown("the worker that sent it recorded no result")
            await self._submit_results.unknown(job.id, submission.id, lost, fence=claim.fence)
        elif job.state is State.SUBMIT_UNKNOWN:
            await self._resolve(UnresolvedSubmission(claim, job, submission, now))

    async def _resolve(self, case: UnresolvedSubmission) -> None:
        provider = self._context.provider(case.submission)
        if provider is None:
            await self._defer(case, LONGEST_PAUSE_SECONDS, "its connection is no longer configured")
            return
        async with self._context.holding([case.claim]):
            result = await self._look_up(case, provider)
        if isinstance(result, float):
            await self._defer(case, result, "the provider may not list it yet")
            return
        await failpoint(Failpoint.CONFIRM_ANSWERED)
        log.info("lost submission looked up", job=encode(Prefix.JOB, case.job.id), result=type(result).__name__)
        match result:
            case Found():
                await self._found(case.submission, result)
            case Absent():
                await self._absent(case)
            case Inconclusive():
                await self._inconclusive(case, provider, result)

    async def _look_up(self, case: UnresolvedSubmission, provider: Provider) -> FindOutcome | float:
        """The result of a look-up, or the seconds until one can prove anything."""
        submission = case.submission
        called_back = await self._finder.of_callback(provider, submission)
        if isinstance(called_back, Found):
            return called_back
        visible_in = (submission.send_deadline + provider.traits.visibility_delay - case.now).total_seconds()
        if visible_in > 0:
            return visible_in
        if provider.traits.lookup is Lookup.REPLAY:
            return await self._replay(provider, case.job, submission)
        return await self._finder.search(provider, case.job, submission, called_back, case.now)

    async def _replay(self, provider: Provider, job: Job, submission: Submission) -> FindOutcome:
        """Send the same bytes again: the provider recognises their key and repeats its first reply."""
        request = self._context.request(job, submission.model, submission.upstream_model, provider)
        call = self._context.paid_call(provider, submission.connection, request, submission.id)
        if hashlib.sha256(call.body).digest() != submission.body_hash:
            return Inconclusive("the request cannot be rebuilt byte for byte")
        if request.unloaded:
            request = await self._context.inputs.loaded(request)
            call = self._context.paid_call(provider, submission.connection, request, submission.id)
        deadline = asyncio.get_running_loop().time() + self._context.settings.submit_timeout
        result = await provider.submit(call, deadline)
        # A refusal may concern only the second request: it proves nothing about the first.
        return Found(result.remote_id) if isinstance(result, Accepted) else Inconclusive(f"sent again: {result}")

    async def _found(self, submission: Submission, found: Found) -> None:
        try:
            await persist(
                lambda: self._submit_results.accepted(submission.job_id, submission.id, Accepted(found.remote_id))
            )
        except submissions.RemoteIdAlreadyClaimed:
            # Another lost submission of an equal request claimed this remote job first; the next look-up excludes it.
            log.info(
                "remote job already claimed by an equal submission", submission=encode(Prefix.SUBMISSION, submission.id)
            )

    async def _absent(self, case: UnresolvedSubmission) -> None:
        submission = case.submission
        async with self._context.database.begin() as conn:
            absent_for = await submissions.mark_missing(conn, submission.id)
            # A callback or a cancel may have made the job due early: look-ups count only with the pause between them.
            pause = max(0, self._context.settings.lookup_pause - absent_for)
            proven = submission.lookups + 1 >= LOOKUPS_NEEDED and not pause
            if not proven and case.left > 0:
                await submissions.change(conn, submission.id, lookups=submission.lookups + 1)
                await schedule.defer(conn, [(case.claim, min(pause, case.left))], all_held=True)
        if proven:
            detail = submission.detail or ""
            known = submission.callback_remote_id
            await self._submit_results.absent(
                submission.job_id, submission.id, detail, ABSENT, callback_remote_id=known
            )
        elif case.left <= 0:
            await self._unprovable(case, "one look-up without a match proves nothing")

    async def _inconclusive(self, case: UnresolvedSubmission, provider: Provider, result: Inconclusive) -> None:
        submission, settings = case.submission, self._context.settings
        hopeless = provider.traits.lookup is Lookup.NONE and not self._may_call_back(provider, submission)
        if hopeless or case.waited >= settings.unknown_wait or case.left <= 0:
            await self._unprovable(case, result.detail)
            return
        async with self._context.database.begin() as conn:
            # Absence takes two consecutive look-ups; an inconclusive one starts over.
            polls = submission.polls + 1
            await submissions.change(conn, submission.id, lookups=0, missing_since=None, polls=polls)
            first = settings.lookup_pause
            pause = exponential(polls, first=first, longest=max(first, LONGEST_PAUSE_SECONDS))
            await schedule.defer(conn, [(case.claim, min(pause, case.left))], all_held=True)

    async def _unprovable(self, case: UnresolvedSubmission, why: str) -> None:
        detail = f"the job's deadline passed: {why}" if case.left <= 0 else why
        await self._submit_results.unprovable(case.job.id, case.submission.id, detail)

    def _may_call_back(self, provider: Provider, submission: Submission) -> bool:
        return (
            provider.traits.callbacks and self._context.callbacks.of(submission.connection, submission.id) is not None
        )

    async def _defer(self, case: UnresolvedSubmission, delay: float, why: str) -> None:
        """Look again after a delay, or at the job's deadline; after it the result stays unknown."""
        if case.left <= 0:
            await self._unprovable(case, why)
            return
        async with self._context.database.begin() as conn:
            await schedule.defer(conn, [(case.claim, min(delay, case.left))])
