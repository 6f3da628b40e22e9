"""Fetches a finished video from its provider into the gateway's storage."""

from app.assets.records import Incoming, Stored
from app.assets.service import AssetService
from app.jobs.engine.context import EngineContext
from app.jobs.records import Job, Submission
from app.media.errors import ProbeExhausted
from app.providers.base import Finished, Missing, PollOutcome, Provider
from app.providers.download import Download

NOT_FOUND = 404


class ResultUnavailable(Exception):
    """The provider did not return the result this time. The text is for operators.

    ``status`` is the job's status after a 404: the provider may still promise the result, or no longer know the job.
    """

    def __init__(self, message: str, status: PollOutcome | None = None) -> None:
        super().__init__(message)
        self.promised = isinstance(status, Finished)
        self.gone = isinstance(status, Missing)


class Fetcher:
    """Makes one attempt per call. Writes nothing to the database."""

    def __init__(self, context: EngineContext, assets: AssetService) -> None:
        self._context = context
        self._assets = assets

    async def fetch(self, job: Job, submission: Submission) -> Stored:
        """Copy the result of a submission into the storage.

        Raises:
            ResultUnavailable, TransportError: a fault of the provider; another try may succeed.
            StorageError: a fault of the gateway's storage.
            VideoRefused: a fault of the video; ``retryable`` says whether another copy may be intact.
        """
        assert submission.remote_id is not None
        provider = self._context.registry.provider(submission.connection)
        results = submission.results
        if submission.fetches or not results:
            results = await _fresh_results(provider, submission.remote_id) or results
        if not results:
            raise ResultUnavailable("the provider named no result")
        async with provider.open_result(results[0]) as download:
            if download.status != NOT_FOUND:
                return await self._store(job, submission, download)
        # With several replicas only one may have the file: a new connection may reach it.
        async with provider.open_result(results[0], fresh=True) as download:
            if download.status != NOT_FOUND:
                return await self._store(job, submission, download)
        raise ResultUnavailable("HTTP 404 instead of the video", await provider.poll(submission.remote_id, fresh=True))

    async def _store(self, job: Job, submission: Submission, download: Download) -> Stored:
        if download.status != 200:
            raise ResultUnavailable(f"HTTP {download.status} instead of the video")
        spec = job.spec_for(submission.model)
        return await self._assets.take_in(
            Incoming(
                job_id=job.id,
                account_id=job.account_id,
                chunks=download.chunks(),
                expected_bytes=download.length,
                seconds=spec.seconds,
                width=spec.width,
                height=spec.height,
                retried=submission.fetches > 0,
            )
        )


def tries_after(submission: Submission, error: Exception, most: int) -> int:
    """The tries that are used up after an attempt has failed, of ``most``.

    A probe that exhausted its budget leaves one: two videos that are expensive to decode could otherwise occupy the
    probes of a worker with every try.
    """
    tries = submission.fetches + 1
    return max(tries, most - 1) if isinstance(error, ProbeExhausted) else tries


async def _fresh_results(provider: Provider, remote_id: str) -> tuple[str, ...]:
    """Result URLs expire; another poll returns fresh ones."""
    result = await provider.poll(remote_id, fresh=True)
    return result.results if isinstance(result, Finished) else ()
