"""The watcher: looks on at purchases whose job has ended, until the truth about them is in the ledger.

A time-out of ours, a lost reply and a provider's silence are no failures of the provider: it may still finish, and it
may charge. A film that comes out late is kept for its job, if that has none; it is never bought again. The job's state
stays as it is.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.errors import AssetError, StorageError
from app.assets.records import Stored
from app.assets.service import AssetService
from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import billing
from app.jobs.db import reconciliations, repository, submissions
from app.jobs.db.reconciliations import Watch
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.fetcher import Fetcher, ResultUnavailable
from app.jobs.engine.finder import Finder, shows_another_order
from app.jobs.engine.resolver import LOOKUPS_NEEDED
from app.jobs.engine.submit_results import Outcomes
from app.jobs.records import Job, Submission
from app.jobs.states import State, SubmissionState
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
from app.settings import AssetSettings

#: Looks become rarer with the age of a purchase, but for this.
LONGEST_PAUSE_SECONDS = 600
AGE_SHARE = 0.1

log = structlog.get_logger()


class Watcher:
    """Works in the `watch` lane."""

    lane = Lane.WATCH

    def __init__(self, bench: Workbench, assets: AssetService, settings: AssetSettings) -> None:
        self._bench = bench
        self._assets = assets
        self._fetcher = Fetcher(bench, assets)
        self._finder = Finder(bench)
        self._outcomes = Outcomes(bench)
        self._settings = settings

    async def claim(self, limit: int) -> Sequence[Watch]:
        async with self._bench.database.single() as connection:
            return await reconciliations.claim(connection, limit, self._bench.lease)

    async def next_due(self) -> float | None:
        """Seconds until the next look."""
        async with self._bench.database.read() as connection:
            return await reconciliations.next_due(connection)

    async def advance(self, watch: Watch) -> None:
        """One look at one purchase."""
        await checkpoint(Checkpoint.WATCH_CLAIMED)
        async with self._bench.database.read() as connection:
            job = await repository.get(connection, watch.job_id)
            submission = await submissions.get(connection, watch.submission_id)
            now = await repository.now(connection)
        if job is None or submission is None:
            return
        if watch.over or not _in_doubt(submission):
            async with self._bench.database.begin() as connection:
                await reconciliations.end(connection, watch)
            return
        provider = self._bench.provider(submission)
        known = False
        if provider is not None:
            lease = self._bench.lease
            async with self._bench.extending(lambda connection: reconciliations.extend(connection, watch, lease)):
                known = await self._look(watch, job, submission, provider, now)
        if not known:
            age = (now - submission.created_at).total_seconds()
            pause = max(self._bench.poll_interval(submission.connection), age * AGE_SHARE)
            async with self._bench.database.begin() as connection:
                await reconciliations.later(connection, watch, min(pause, LONGEST_PAUSE_SECONDS))

    async def _look(self, watch: Watch, job: Job, submission: Submission, provider: Provider, now: datetime) -> bool:
        """Whether the truth is known now."""
        if submission.remote_id is None:
            return await self._look_for(watch, job, submission, provider, now)
        outcome = await provider.poll(submission.remote_id, fresh=submission.missing_since is not None)
        await checkpoint(Checkpoint.WATCH_ANSWERED)
        match outcome:
            case Finished() if shows_another_order(provider, job, submission, outcome.raw):
                pass
            case Finished():
                return await self._finished(watch, job, submission, outcome)
            case Failed():
                return await self._no_film(watch, submission, outcome.failure.billed, outcome.cost, outcome.raw)
            case Canceled():
                return await self._no_film(watch, submission, Billed.UNKNOWN, outcome.cost, outcome.raw)
            case Missing():
                return await self._missing(watch, submission)
            case Pending():
                if job.state in {State.SUCCEEDED, State.CANCELED} and provider.traits.cancels:
                    # Nobody wants this film: it may be stopped before it costs anything (more).
                    await provider.cancel(submission.remote_id)
                async with self._bench.database.begin() as connection:
                    await submissions.found_again(connection, [submission.id])
            case Unreadable():
                pass
        return False

    async def _look_for(
        self, watch: Watch, job: Job, submission: Submission, provider: Provider, now: datetime
    ) -> bool:
        """The reply was lost: is there a record after all? Sending again is out of the question, the job has ended."""
        hinted = await self._finder.hinted(provider, submission)
        outcome: FindOutcome | None = hinted
        if submission.state is SubmissionState.ABANDONED and not isinstance(hinted, Found):
            outcome = await self._finder.search(provider, job, submission, hinted, now)
        if outcome is None:
            return await self._unfounded(watch, submission)
        await checkpoint(Checkpoint.WATCH_ANSWERED)
        if isinstance(outcome, Found):
            try:
                accepted = Accepted(outcome.remote_id)
                await persist(lambda: self._outcomes.accepted(job.id, submission.id, accepted))
            except submissions.TwinTookIt:
                return False
            self._bench.bell.ring(Lane.WATCH)
            raise Overtaken  # the watch was renewed with the record's id
        lookups = submission.lookups + 1 if isinstance(outcome, Absent) else 0
        if lookups < LOOKUPS_NEEDED:
            async with self._bench.database.begin() as connection:
                await submissions.change(connection, submission.id, lookups=lookups)
            return False
        await self._outcomes.never_bought(submission)
        async with self._bench.database.begin() as connection:
            await reconciliations.end(connection, watch)
        return True

    async def _unfounded(self, watch: Watch, submission: Submission) -> bool:
        """A callback named a record that the provider does not know: after a while it stays settled as it was."""
        async with self._bench.database.begin() as connection:
            missing_for = await submissions.mark_missing(connection, submission.id)
            if missing_for < self._bench.settings.lost_after:
                return False
            await submissions.change(connection, submission.id, hint=None, missing_since=None)
            await reconciliations.end(connection, watch)
        return True

    async def _missing(self, watch: Watch, submission: Submission) -> bool:
        async with self._bench.database.begin() as connection:
            missing_for = await submissions.mark_missing(connection, submission.id)
            if missing_for < self._bench.settings.lost_after:
                return False
            await reconciliations.end(connection, watch)
        return True

    async def _no_film(
        self, watch: Watch, submission: Submission, billed: Billed, cost: Decimal | None, raw: Any
    ) -> bool:
        certainty = billing.of_failure(submission, self._bench.bills_on(submission.connection), billed, cost)
        async with self._bench.database.begin() as connection:
            await self._lock(connection, watch)
            await submissions.end(
                connection,
                submission.id,
                SubmissionState.DONE,
                cost=cost,
                charge_certainty=certainty.value,
                late=True,
                raw=raw,
            )
            await self._bench.recorder.recount(connection, watch.job_id)
            await reconciliations.end(connection, watch)
        return True

    async def _finished(self, watch: Watch, job: Job, submission: Submission, outcome: Finished) -> bool:
        cost, certainty = billing.of_success(submission, self._bench.bills_on(submission.connection), outcome.cost)
        async with self._bench.database.begin() as connection:
            await self._lock(connection, watch)
            if not submission.late:
                await submissions.change(
                    connection,
                    submission.id,
                    results=list(outcome.results),
                    cost=cost,
                    charge_certainty=certainty.value,
                    late=True,
                    raw=outcome.raw,
                )
                await self._bench.recorder.recount(connection, job.id)
            wanted = job.final and not await self._assets.of_jobs(connection, [job.id])
            finished = await submissions.get(connection, submission.id)
        return await (self._adopt(watch, job, finished) if wanted and finished else self._leave(watch, job, submission))

    async def _adopt(self, watch: Watch, job: Job, submission: Submission) -> bool:
        try:
            stored = await self._fetcher.take_in(job, submission)
        except StorageError as error:
            log.error("storage not usable", job=encode(Prefix.JOB, job.id), error=str(error))  # noqa: TRY400
            return False
        except Overtaken:
            raise
        except Exception as error:
            # Also what nobody foresaw counts as a try, as in the storer.
            if not isinstance(error, AssetError | TransportError | ResultUnavailable):
                log.exception("late film not taken in", job=encode(Prefix.JOB, job.id))
            tries = submission.fetches + 1
            log.warning("late film not taken in", job=encode(Prefix.JOB, job.id), tries=tries, error=str(error))
            if tries >= self._settings.fetch_tries:
                return await self._leave(watch, job, submission)
            async with self._bench.database.begin() as connection:
                await submissions.change(connection, submission.id, fetches=tries)
            return False
        await persist(lambda: self._adopted(watch, submission, stored))
        self._bench.bell.ring(Lane.DELIVER)
        log.info("late film stored", job=encode(Prefix.JOB, job.id))
        return True

    async def _adopted(self, watch: Watch, submission: Submission, stored: Stored) -> None:
        async with self._bench.database.begin() as connection:
            await self._lock(connection, watch)
            assets = await self._assets.record(connection, stored)
            await submissions.end(connection, submission.id, SubmissionState.DONE, fetches=submission.fetches + 1)
            ids = {asset.kind.value: encode(Prefix.ASSET, asset.id) for asset in assets}
            await self._bench.recorder.film_late(connection, watch.job_id, ids)
            await reconciliations.end(connection, watch)

    async def _leave(self, watch: Watch, job: Job, submission: Submission) -> bool:
        """The job has its film already, or this one cannot be had: the ledger says what it cost."""
        if not job.final:
            return False  # it was bought anew, and may come to nothing yet
        async with self._bench.database.begin() as connection:
            await self._lock(connection, watch)
            await submissions.end(connection, submission.id, SubmissionState.DONE)
            await reconciliations.end(connection, watch)
        return True

    async def _lock(self, connection: AsyncConnection, watch: Watch) -> None:
        if await repository.lock(connection, watch.job_id) is None:
            raise Overtaken


def _in_doubt(submission: Submission) -> bool:
    """Whether anything may still be learned of a purchase."""
    settled = submission.state in {SubmissionState.ABSENT, SubmissionState.REJECTED}
    return submission.state is SubmissionState.ABANDONED or (settled and submission.hint is not None)
