"""The reconciler: polls submissions of ended jobs until their final result and cost are recorded.

After the gateway's own time-out, a lost reply or an unreachable provider, the render may still finish and may be
charged. A late video is kept for its job if that has none. Nothing is submitted, and the job's state stays as it is.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.records import Stored
from app.assets.service import AssetService
from app.claims import ClaimLost
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane, Step
from app.jobs import billing
from app.jobs.db import reconciliations, repository, submissions
from app.jobs.db.reconciliations import Reconciliation
from app.jobs.engine.context import EngineContext, persist
from app.jobs.engine.fetcher import Fetcher, ResultUnavailable, tries_after
from app.jobs.engine.finder import Finder, shows_another_request
from app.jobs.engine.resolver import LOOKUPS_NEEDED
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.records import Job, Submission
from app.jobs.states import State, SubmissionState
from app.media.errors import MediaError, StorageError
from app.providers.base import (
    Absent,
    Accepted,
    Canceled,
    Failed,
    FindOutcome,
    Finished,
    Found,
    Missing,
    Pending,
    Provider,
    Unreadable,
)
from app.providers.errors import Billed
from app.providers.transport import TransportError

#: The pause between polls grows with the age of a submission, by this share of it and up to this limit.
AGE_SHARE = 0.1
LONGEST_PAUSE_SECONDS = 600

log = structlog.get_logger()


class Reconciler(Step[Reconciliation]):
    """Works in the `watch` lane."""

    lane = Lane.RECONCILE

    def __init__(
        self,
        context: EngineContext,
        finder: Finder,
        fetcher: Fetcher,
        submit_results: SubmitResults,
        assets: AssetService,
        *,
        fetch_tries: int,
        limit: int,
    ) -> None:
        self._context = context
        self._finder = finder
        self._fetcher = fetcher
        self._submit_results = submit_results
        self._assets = assets
        self._fetch_tries = fetch_tries
        self.limit = limit

    async def claim(self, limit: int) -> AsyncIterator[Reconciliation]:
        async with self._context.database.single() as conn:
            claimed = await reconciliations.claim(conn, limit, self._context.lease)
        for claim in claimed:
            yield claim

    async def next_due(self) -> float | None:
        """Seconds until the next poll."""
        async with self._context.database.read() as conn:
            return await reconciliations.next_due(conn)

    async def advance(self, claim: Reconciliation) -> None:
        """Poll one submission once."""
        await failpoint(Failpoint.WATCH_CLAIMED)
        async with self._context.database.read() as conn:
            job = await repository.get(conn, claim.job_id)
            submission = await submissions.get(conn, claim.submission_id)
            now = await repository.now(conn)
        if job is None or submission is None:
            return
        if claim.expired or not _undetermined(submission):
            async with self._context.database.begin() as conn:
                await reconciliations.end(conn, claim)
            return
        provider = self._context.provider(submission)
        recorded = False
        if provider is not None:
            lease = self._context.lease
            async with self._context.extending(lambda conn: reconciliations.extend(conn, claim, lease)):
                recorded = await self._poll(claim, job, submission, provider, now)
        if not recorded:
            age = (now - submission.created_at).total_seconds()
            pause = max(self._context.poll_interval(submission.connection), age * AGE_SHARE)
            async with self._context.database.begin() as conn:
                await reconciliations.defer(conn, claim, min(pause, LONGEST_PAUSE_SECONDS))

    async def _poll(
        self, claim: Reconciliation, job: Job, submission: Submission, provider: Provider, now: datetime
    ) -> bool:
        """Poll once. Returns whether the final result is recorded."""
        if submission.remote_id is None:
            return await self._look_up(claim, job, submission, provider, now)
        result = await provider.poll(submission.remote_id, fresh=submission.missing_since is not None)
        await failpoint(Failpoint.WATCH_ANSWERED)
        match result:
            case Finished() if shows_another_request(provider, job, submission, result.raw):
                pass
            case Finished():
                return await self._finished(claim, job, submission, result)
            case Failed():
                return await self._no_video(claim, submission, result.failure.billed, result.cost, result.raw)
            case Canceled():
                return await self._no_video(claim, submission, Billed.UNKNOWN, result.cost, result.raw)
            case Missing():
                return await self._missing(claim, submission)
            case Pending():
                if job.state in {State.SUCCEEDED, State.CANCELED} and provider.traits.cancels:
                    # The job needs no video any more: stop the render before it costs (more).
                    await provider.cancel(submission.remote_id)
                async with self._context.database.begin() as conn:
                    await submissions.clear_missing(conn, [submission.id])
            case Unreadable():
                pass
        return False

    async def _look_up(
        self, claim: Reconciliation, job: Job, submission: Submission, provider: Provider, now: datetime
    ) -> bool:
        """Look for the remote job of a lost reply. The request is not sent again: its job has ended."""
        called_back = await self._finder.of_callback(provider, submission)
        result: FindOutcome | None = called_back
        if submission.state is SubmissionState.ABANDONED and not isinstance(called_back, Found):
            result = await self._finder.search(provider, job, submission, called_back, now)
        if result is None:
            return await self._callback_unconfirmed(claim, submission)
        await failpoint(Failpoint.WATCH_ANSWERED)
        if isinstance(result, Found):
            try:
                accepted = Accepted(result.remote_id)
                await persist(lambda: self._submit_results.accepted(job.id, submission.id, accepted))
            except submissions.RemoteIdAlreadyClaimed:
                return False
            raise ClaimLost  # the reconciliation was renewed with the remote id
        lookups = submission.lookups + 1 if isinstance(result, Absent) else 0
        if lookups < LOOKUPS_NEEDED:
            async with self._context.database.begin() as conn:
                await submissions.change(conn, submission.id, lookups=lookups)
            return False
        await self._submit_results.absent_late(submission)
        async with self._context.database.begin() as conn:
            await reconciliations.end(conn, claim)
        return True

    async def _callback_unconfirmed(self, claim: Reconciliation, submission: Submission) -> bool:
        """A callback named a remote job that the provider does not know: after a while its result stays as it was."""
        async with self._context.database.begin() as conn:
            missing_for = await submissions.mark_missing(conn, submission.id)
            if missing_for < self._context.settings.lost_after:
                return False
            await submissions.change(conn, submission.id, callback_remote_id=None, missing_since=None)
            await reconciliations.end(conn, claim)
        return True

    async def _missing(self, claim: Reconciliation, submission: Submission) -> bool:
        async with self._context.database.begin() as conn:
            missing_for = await submissions.mark_missing(conn, submission.id)
            if missing_for < self._context.settings.lost_after:
                return False
            await reconciliations.end(conn, claim)
        return True

    async def _no_video(
        self, claim: Reconciliation, submission: Submission, billed: Billed, cost: Decimal | None, raw: Any
    ) -> bool:
        certainty = billing.of_failure(submission, self._context.bills_on(submission.connection), billed, cost)
        async with self._context.transitions.begin() as changes:
            conn = changes.conn
            await self._lock(conn, claim)
            await submissions.end(
                conn,
                submission.id,
                SubmissionState.DONE,
                cost=cost,
                charge_certainty=certainty,
                late=True,
                raw=raw,
            )
            await changes.recount(claim.job_id)
            await reconciliations.end(conn, claim)
        return True

    async def _finished(self, claim: Reconciliation, job: Job, submission: Submission, result: Finished) -> bool:
        async with self._context.transitions.begin() as changes:
            conn = changes.conn
            await self._lock(conn, claim)
            if not submission.late:
                finished = self._context.finished(submission, result)
                finished["late"] = True
                await submissions.change(conn, submission.id, **finished)
                await changes.recount(job.id)
            wanted = job.final and not await self._assets.of_jobs(conn, [job.id])
            current = await submissions.get(conn, submission.id)
        return await (self._store(claim, job, current) if wanted and current else self._close(claim, job, submission))

    async def _store(self, claim: Reconciliation, job: Job, submission: Submission) -> bool:
        try:
            stored = await self._fetcher.fetch(job, submission)
        except StorageError as error:
            log.error("storage unavailable", job=encode(Prefix.JOB, job.id), error=str(error))  # noqa: TRY400
            return False
        except ClaimLost:
            raise
        except Exception as error:
            # An unexpected error counts as a try, as in the storer.
            if not isinstance(error, MediaError | TransportError | ResultUnavailable):
                log.exception("unexpected error while storing a late video", job=encode(Prefix.JOB, job.id))
            tries = tries_after(submission, error, self._fetch_tries)
            log.warning("storing the late video failed", job=encode(Prefix.JOB, job.id), tries=tries, error=str(error))
            if tries >= self._fetch_tries:
                return await self._close(claim, job, submission)
            async with self._context.database.begin() as conn:
                await submissions.change(conn, submission.id, fetches=tries)
            return False
        await persist(lambda: self._stored(claim, submission, stored))
        log.info("late video stored", job=encode(Prefix.JOB, job.id))
        return True

    async def _stored(self, claim: Reconciliation, submission: Submission, stored: Stored) -> None:
        async with self._context.transitions.begin() as changes:
            conn = changes.conn
            await self._lock(conn, claim)
            assets = await self._assets.record(conn, stored)
            await submissions.end(conn, submission.id, SubmissionState.DONE, fetches=submission.fetches + 1)
            await changes.video_late(claim.job_id, [self._assets.show(asset) for asset in assets])
            await reconciliations.end(conn, claim)

    async def _close(self, claim: Reconciliation, job: Job, submission: Submission) -> bool:
        """The job already has a video, or this one cannot be fetched: only its cost is recorded."""
        if not job.final:
            return False  # it was submitted again, which may still fail
        async with self._context.database.begin() as conn:
            await self._lock(conn, claim)
            await submissions.end(conn, submission.id, SubmissionState.DONE)
            await reconciliations.end(conn, claim)
        return True

    async def _lock(self, conn: AsyncConnection, claim: Reconciliation) -> None:
        if await repository.lock(conn, claim.job_id) is None:
            raise ClaimLost


def _undetermined(submission: Submission) -> bool:
    """Whether the final result of a submission may still become known."""
    settled = submission.state in {SubmissionState.ABSENT, SubmissionState.REJECTED}
    return submission.state is SubmissionState.ABANDONED or (settled and submission.callback_remote_id is not None)
