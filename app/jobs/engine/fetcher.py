"""Fetches a finished film from its provider into our storage."""

from app.assets.records import Incoming, Stored
from app.assets.service import AssetService
from app.jobs.engine.context import Workbench
from app.jobs.records import Job, Submission
from app.providers.base import Finished, Missing, PollOutcome, Provider
from app.providers.transport import Download

NOT_FOUND = 404


class ResultUnavailable(Exception):
    """The provider did not hand out the result this time. The text is for operators.

    ``status`` is what it said of the job after a 404: it may still promise the result, or not know the job any more.
    """

    def __init__(self, message: str, status: PollOutcome | None = None) -> None:
        super().__init__(message)
        self.promised = isinstance(status, Finished)
        self.gone = isinstance(status, Missing)


class Fetcher:
    """One attempt at a time; nothing is written to the database."""

    def __init__(self, bench: Workbench, assets: AssetService) -> None:
        self._bench = bench
        self._assets = assets

    async def take_in(self, job: Job, submission: Submission) -> Stored:
        """
        Raises:
            ResultUnavailable, TransportError: the provider's side; another try may do.
            StorageError: our side.
            FilmRefused: the film's side; ``retryable`` says whether another copy may be better.
        """
        assert submission.remote_id is not None
        provider = self._bench.registry.provider(submission.connection)
        results = submission.results
        if submission.fetches or not results:
            results = await _fresh_results(provider, submission.remote_id) or results
        if not results:
            raise ResultUnavailable("the provider named no result")
        async with provider.open_result(results[0]) as download:
            if download.status != NOT_FOUND:
                return await self._take(job, submission, download)
        # Of several replicas only one has the file: the next request may reach it.
        async with provider.open_result(results[0], fresh=True) as download:
            if download.status != NOT_FOUND:
                return await self._take(job, submission, download)
        raise ResultUnavailable("HTTP 404 instead of the film", await provider.poll(submission.remote_id, fresh=True))

    async def _take(self, job: Job, submission: Submission, download: Download) -> Stored:
        if download.status != 200:
            raise ResultUnavailable(f"HTTP {download.status} instead of the film")
        ordered = job.choice(submission.model).ordered
        packed = "content-encoding" in download.headers
        length = "" if packed else download.headers.get("content-length", "")
        return await self._assets.take_in(
            Incoming(
                job_id=job.id,
                account_id=job.account_id,
                chunks=download.chunks(),
                expected_bytes=int(length) if length.isdigit() else None,
                seconds=ordered.seconds,
                width=ordered.width,
                height=ordered.height,
            )
        )


async def _fresh_results(provider: Provider, remote_id: str) -> tuple[str, ...]:
    """Result URLs expire; asking again gives fresh ones."""
    outcome = await provider.poll(remote_id, fresh=True)
    return outcome.results if isinstance(outcome, Finished) else ()
