"""The storer: copies a finished film into our own storage, and calls the job succeeded only after that."""

from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.errors import AssetError, StorageError
from app.assets.records import Stored
from app.assets.service import AssetService
from app.backoff import exponential
from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import failures
from app.jobs.db import repository, schedule, submissions
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.fetcher import Fetcher, ResultUnavailable
from app.jobs.engine.render_results import Verdicts
from app.jobs.engine.submit_results import DETAIL_CHARACTERS
from app.jobs.records import Claim, Job, Submission
from app.jobs.states import State, SubmissionState
from app.providers.transport import TransportError
from app.settings import AssetSettings

FIRST_RETRY_SECONDS = 2
LONGEST_RETRY_SECONDS = 120
STORAGE_RETRY_SECONDS = 30

log = structlog.get_logger()


class Storer:
    """Advances jobs in the `store` lane."""

    lane = Lane.STORE

    def __init__(self, bench: Workbench, assets: AssetService, settings: AssetSettings) -> None:
        self._bench = bench
        self._assets = assets
        self._fetcher = Fetcher(bench, assets)
        self._verdicts = Verdicts(bench)
        self._settings = settings

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._bench.claim(self.lane, limit)

    async def advance(self, claim: Claim) -> None:
        """One attempt to take in one film."""
        await checkpoint(Checkpoint.STORE_CLAIMED)
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, claim.job_id)
            submission = await submissions.live_of(connection, claim.job_id)
        if job is None or submission is None or job.state is not State.STORING:
            return
        try:
            async with self._bench.holding([claim]):
                stored = await self._fetcher.take_in(job, submission)
        except Overtaken:
            raise
        except StorageError as error:
            await self._storage_trouble(claim, job, error)
        except Exception as error:
            # Also what nobody foresaw counts as a try: a film that we cannot read must not be tried for ever.
            if not isinstance(error, AssetError | TransportError | ResultUnavailable):
                log.exception("film not taken in", job=encode(Prefix.JOB, job.id))
            await self._result_trouble(claim, job, submission, error)
        else:
            await persist(lambda: self._succeeded(claim, job, submission, stored))

    async def _succeeded(self, claim: Claim, job: Job, submission: Submission, stored: Stored) -> None:
        async with self._bench.database.begin() as connection:
            await self._storing(connection, claim)
            assets = await self._assets.record(connection, stored)
            fetched = {"fetches": submission.fetches + 1, "missing_since": None}
            await submissions.end(connection, submission.id, SubmissionState.DONE, **fetched)
            await self._bench.recorder.move(
                connection,
                job.id,
                State.SUCCEEDED,
                from_=(State.STORING,),
                fence=claim.fence,
                assets={asset.kind.value: encode(Prefix.ASSET, asset.id) for asset in assets},
            )
            await checkpoint(Checkpoint.STORE_RECORDED)
        self._bench.bell.ring(Lane.DELIVER)
        log.info("film stored", job=encode(Prefix.JOB, job.id))

    async def _storage_trouble(self, claim: Claim, job: Job, error: StorageError) -> None:
        """Our own side: the film waits upstream, and no try is counted."""
        log.error("storage not usable", job=encode(Prefix.JOB, job.id), error=str(error))
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.notice(
                connection, job.id, "The film is rendered; the gateway's storage cannot take it in yet."
            )
            await schedule.defer(connection, [(claim, STORAGE_RETRY_SECONDS)])

    async def _result_trouble(self, claim: Claim, job: Job, submission: Submission, error: Exception) -> None:
        """The provider's side, or the film's: it is tried again, given up, or made anew where that costs nothing."""
        tries = submission.fetches + 1
        unavailable = error if isinstance(error, ResultUnavailable) else None
        final = tries >= self._settings.fetch_tries or (isinstance(error, AssetError) and not error.retryable)
        async with self._bench.database.begin() as connection:
            await self._storing(connection, claim)
            missing_for = 0.0
            if unavailable is not None and (unavailable.promised or unavailable.gone):
                missing_for = await submissions.mark_missing(connection, submission.id)
            lost = missing_for >= self._bench.settings.lost_after
            if unavailable is not None and unavailable.promised:
                final = final and lost  # as long as the status promises a video, a 404 may be another replica's
            anew = unavailable is not None and unavailable.gone and self._verdicts.costs_nothing(submission)
            log.warning("film not taken in", job=encode(Prefix.JOB, job.id), tries=tries, final=final, error=str(error))
            if anew and lost:
                await self._verdicts.submit_again(connection, claim, job, submission)
            elif anew or not final:
                await self._again(connection, claim, submission, tries, str(error))
            else:
                await self._unavailable(connection, claim, submission, tries, str(error))
        self._bench.bell.ring(Lane.DELIVER, Lane.SUBMIT, Lane.WATCH)

    async def _again(
        self, connection: AsyncConnection, claim: Claim, submission: Submission, tries: int, detail: str
    ) -> None:
        await submissions.change(connection, submission.id, fetches=tries, detail=detail[:DETAIL_CHARACTERS])
        pause = exponential(tries, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        words = "The film is rendered; fetching it failed and is tried again."
        await self._bench.recorder.notice(connection, claim.job_id, words)
        await schedule.defer(connection, [(claim, pause)])

    async def _unavailable(
        self, connection: AsyncConnection, claim: Claim, submission: Submission, tries: int, detail: str
    ) -> None:
        error = failures.ASSET_UNAVAILABLE
        ended = {"fetches": tries, "failure": error, "detail": detail[:DETAIL_CHARACTERS]}
        await submissions.end(connection, submission.id, SubmissionState.DONE, **ended)
        await self._bench.recorder.move(
            connection, claim.job_id, State.FAILED, from_=(State.STORING,), fence=claim.fence, error=error
        )

    async def _storing(self, connection: AsyncConnection, claim: Claim) -> None:
        """Lock the job first, as everybody does."""
        job = await repository.lock(connection, claim.job_id)
        if job is None or job.state is not State.STORING:
            raise Overtaken
