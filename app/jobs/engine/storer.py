"""The storer: copies a finished video into the gateway's storage; only then the job succeeds."""

import structlog

from app.assets.records import Stored
from app.assets.service import AssetService
from app.backoff import exponential
from app.claims import ClaimLost
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import errors
from app.jobs.db import repository, schedule, submissions
from app.jobs.engine.context import EngineContext, ScheduledStep, persist
from app.jobs.engine.fetcher import Fetcher, ResultUnavailable, tries_after
from app.jobs.engine.render_results import RenderResults
from app.jobs.engine.submit_results import DETAIL_CHARACTERS
from app.jobs.records import Claim, Job, Submission, SubmissionChange
from app.jobs.states import State, SubmissionState
from app.jobs.transitions import Changes
from app.media.errors import MediaError, StorageError
from app.providers.transport import TransportError

FIRST_RETRY_SECONDS = 2
LONGEST_RETRY_SECONDS = 120
STORAGE_RETRY_SECONDS = 30

log = structlog.get_logger()


class Storer(ScheduledStep):
    """Advances jobs in the `store` lane."""

    lane = Lane.STORE

    def __init__(
        self,
        context: EngineContext,
        fetcher: Fetcher,
        render_results: RenderResults,
        assets: AssetService,
        *,
        fetch_tries: int,
        limit: int,
    ) -> None:
        self._context = context
        self._fetcher = fetcher
        self._render_results = render_results
        self._assets = assets
        self._fetch_tries = fetch_tries
        self.limit = limit

    async def advance(self, claim: Claim) -> None:
        """Make one attempt to store one video."""
        await failpoint(Failpoint.STORE_CLAIMED)
        async with self._context.database.read() as conn:
            job = await repository.get(conn, claim.job_id)
            submission = await submissions.live_of(conn, claim.job_id)
        if job is None or submission is None or job.state is not State.STORING:
            return
        try:
            async with self._context.holding([claim]):
                stored = await self._fetcher.fetch(job, submission)
        except ClaimLost:
            raise
        except StorageError as error:
            await self._storage_failed(claim, job, error)
        except Exception as error:
            # An unexpected error counts as a try, too: an unreadable video must not be retried endlessly.
            if not isinstance(error, MediaError | TransportError | ResultUnavailable):
                log.exception("unexpected error while storing a video", job=encode(Prefix.JOB, job.id))
            await self._fetch_failed(claim, job, submission, error)
        else:
            await persist(lambda: self._succeeded(claim, job, submission, stored))

    async def _succeeded(self, claim: Claim, job: Job, submission: Submission, stored: Stored) -> None:
        async with self._context.transitions.begin() as changes:
            await self._storing(changes, claim)
            assets = await self._assets.record(changes.conn, stored)
            fetches = submission.fetches + 1
            await submissions.end(
                changes.conn, submission.id, SubmissionState.DONE, fetches=fetches, missing_since=None
            )
            await changes.move(
                job.id,
                State.SUCCEEDED,
                from_=(State.STORING,),
                fence=claim.fence,
                assets=[self._assets.show(asset) for asset in assets],
            )
            await failpoint(Failpoint.STORE_RECORDED)
        log.info("video stored", job=encode(Prefix.JOB, job.id))

    async def _storage_failed(self, claim: Claim, job: Job, error: StorageError) -> None:
        """A fault of the storage: the video stays with the provider, and no try is counted."""
        log.error("storage unavailable", job=encode(Prefix.JOB, job.id), error=str(error))
        async with self._context.transitions.begin() as changes:
            await changes.notice(job.id, "The video is rendered; the gateway's storage is unavailable. Retrying.")
            await schedule.defer(changes.conn, [(claim, STORAGE_RETRY_SECONDS)])

    async def _fetch_failed(self, claim: Claim, job: Job, submission: Submission, error: Exception) -> None:
        """A fault of the provider or of the video: retry, fail, or submit again where that is free."""
        tries = tries_after(submission, error, self._fetch_tries)
        unavailable = error if isinstance(error, ResultUnavailable) else None
        final = tries >= self._fetch_tries or (isinstance(error, MediaError) and not error.retryable)
        async with self._context.transitions.begin() as changes:
            await self._storing(changes, claim)
            missing_for = 0.0
            if unavailable is not None and (unavailable.promised or unavailable.gone):
                missing_for = await submissions.mark_missing(changes.conn, submission.id)
            lost = missing_for >= self._context.settings.lost_after
            if unavailable is not None and unavailable.promised:
                final = final and lost  # while the status promises a video, a 404 may come from another replica
            replaceable = (
                unavailable is not None and unavailable.gone and self._render_results.costs_nothing(submission)
            )
            log.warning(
                "storing the video failed", job=encode(Prefix.JOB, job.id), tries=tries, final=final, error=str(error)
            )
            if replaceable and lost:
                await self._render_results.submit_again(changes, claim, job, submission)
            elif replaceable or not final:
                await self._retry(changes, claim, submission, tries, str(error))
            else:
                await self._unavailable(changes, claim, submission, tries, str(error))

    async def _retry(self, changes: Changes, claim: Claim, submission: Submission, tries: int, detail: str) -> None:
        await submissions.change(changes.conn, submission.id, fetches=tries, detail=detail[:DETAIL_CHARACTERS])
        pause = exponential(tries, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        await changes.notice(claim.job_id, "The video is rendered; fetching it failed. Retrying.")
        await schedule.defer(changes.conn, [(claim, pause)])

    async def _unavailable(
        self, changes: Changes, claim: Claim, submission: Submission, tries: int, detail: str
    ) -> None:
        error = errors.ASSET_UNAVAILABLE
        ended: SubmissionChange = {"fetches": tries, "failure": error, "detail": detail[:DETAIL_CHARACTERS]}
        await submissions.end(changes.conn, submission.id, SubmissionState.DONE, **ended)
        await changes.move(claim.job_id, State.FAILED, from_=(State.STORING,), fence=claim.fence, error=error)

    async def _storing(self, changes: Changes, claim: Claim) -> None:
        """Lock the job first, as every transaction does."""
        job = await repository.lock(changes.conn, claim.job_id)
        if job is None or job.state is not State.STORING:
            raise ClaimLost
