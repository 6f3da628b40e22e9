"""The poller: reads the status of renders, many at once; unchanged ones are written back in one statement."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.backoff import exponential, jittered
from app.claims import ClaimLost
from app.events.types import EventType
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane, Step
from app.jobs import errors
from app.jobs.db import schedule, submissions
from app.jobs.db.render_times import RenderTimes
from app.jobs.db.submissions import RenderingJob
from app.jobs.engine.context import EngineContext, persist
from app.jobs.engine.render_results import RenderResults
from app.jobs.records import Claim, Submission
from app.providers.base import (
    Canceled,
    CancelOutcome,
    Failed,
    Finished,
    Missing,
    Pending,
    Provider,
    Unreadable,
)

#: Limits the delay that a provider asks for: deadlines and cancels must be noticed in time.
LONGEST_PAUSE_SECONDS = 60.0
#: Delay before the next poll of a render whose cancel was requested.
CANCEL_PAUSE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PolledJob:
    """A claimed job, its submission, and the provider that renders it."""

    claim: Claim
    rendering: RenderingJob
    provider: Provider | None  # None: its connection is no longer configured

    @property
    def submission(self) -> Submission:
        return self.rendering.submission

    @property
    def job_id(self) -> UUID:
        return self.claim.job_id

    @property
    def overdue(self) -> bool:
        return self.rendering.overdue


class Poller(Step[list[Claim]]):
    """Advances jobs in the `poll` lane, in batches."""

    lane = Lane.POLL

    def __init__(
        self, context: EngineContext, render_results: RenderResults, render_times: RenderTimes, *, limit: int
    ) -> None:
        self._context = context
        self._render_results = render_results
        self._render_times = render_times
        self.limit = limit

    async def claim(self, limit: int) -> AsyncIterator[list[Claim]]:
        """Due jobs, in one batch for each connection, so that a slow provider delays only its own jobs."""
        # Two transactions: a claim whose second statement fails expires with its lease.
        async with self._context.database.single() as conn:
            claims = await schedule.claim(conn, self.lane, limit, self._context.lease)
            if not claims:
                return
            connections = await submissions.connections_of(conn, [claim.job_id for claim in claims])
        batches: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            batches[connections.get(claim.job_id, "")].append(claim)
        for batch in batches.values():
            yield batch

    async def next_due(self) -> float | None:
        return await self._context.next_due(self.lane)

    def weight(self, item: list[Claim]) -> int:
        return len(item)

    async def advance(self, batch: Sequence[Claim]) -> None:
        """Poll each job of a batch once; the unchanged ones are written back together."""
        await failpoint(Failpoint.POLL_CLAIMED)
        async with self._context.holding(batch):
            unchanged = [
                (one, delay) for one, delay in await self._poll_all(await self._polled(batch)) if delay is not None
            ]
        async with self._context.database.single() as conn:
            if missed := [one.submission.id for one, _ in unchanged if one.submission.missing_since is not None]:
                await submissions.clear_missing(conn, missed)
            await schedule.defer(conn, [(one.claim, delay) for one, delay in unchanged])

    async def _polled(self, batch: Sequence[Claim]) -> list[PolledJob]:
        claims = {claim.job_id: claim for claim in batch}
        async with self._context.database.read() as conn:
            found = await submissions.rendering(conn, list(claims))
        return [PolledJob(claims[one.submission.job_id], one, self._context.provider(one.submission)) for one in found]

    async def _poll_all(self, polled: Sequence[PolledJob]) -> list[tuple[PolledJob, float | None]]:
        """The seconds until the next poll of each; None if it has moved on, or must wait until its lease ends."""
        delays = await asyncio.gather(*(self._poll(one) for one in polled), return_exceptions=True)
        results: list[tuple[PolledJob, float | None]] = []
        for one, delay in zip(polled, delays, strict=True):
            if not isinstance(delay, BaseException):
                results.append((one, delay))
            elif isinstance(delay, asyncio.CancelledError):
                raise delay
            elif not isinstance(delay, ClaimLost):
                log.error("poll failed", job=encode(Prefix.JOB, one.job_id), exc_info=delay)
                if one.overdue:
                    await self._render_results.abandoned(one.claim, one.submission, errors.TIMEOUT)
        return results

    async def _poll(self, one: PolledJob) -> float | None:
        """Poll once and act on the reply; returns the seconds until the next poll if nothing changed."""
        assert one.submission.remote_id is not None
        if one.provider is None:
            return await self._not_configured(one)
        result = await one.provider.poll(one.submission.remote_id, fresh=one.submission.missing_since is not None)
        await failpoint(Failpoint.POLL_ANSWERED)
        match result:
            case Finished():
                self._render_times.note(one.submission)
                await persist(lambda: self._render_results.finished(one.claim, one.submission, result))
                return None
            case Failed():
                await persist(lambda: self._render_results.failed(one.claim, one.submission, result))
                return None
            case Canceled():
                await persist(lambda: self._render_results.canceled(one.claim, one.submission, result))
                return None
            case Pending() | Missing() | Unreadable():
                return await self._unfinished(one, one.provider, result)

    async def _unfinished(
        self, one: PolledJob, provider: Provider, result: Pending | Missing | Unreadable
    ) -> float | None:
        if isinstance(result, Missing):
            return await self._missing(one)
        if one.overdue:
            await self._timed_out(one, provider, result)
            return None
        if isinstance(result, Unreadable):
            return self._unreadable(one, result)
        if one.rendering.cancel_requested and one.rendering.cancel_outcome is None:
            return await self._cancel(one, provider)
        return await self._pending(one, result)

    async def _not_configured(self, one: PolledJob) -> float | None:
        if one.overdue:
            await self._render_results.abandoned(one.claim, one.submission, errors.TIMEOUT)
            return None
        text = f"Connection {one.submission.connection}, which renders this video, is no longer configured; restore it."
        async with self._context.transitions.begin() as changes:
            await changes.notice(one.job_id, text)
        return LONGEST_PAUSE_SECONDS

    async def _pending(self, one: PolledJob, result: Pending) -> float:
        if result.oddity:
            log.warning("unknown status from the provider", connection=one.submission.connection, status=result.oddity)
        if result.progress is not None and result.progress > one.rendering.progress:
            async with self._context.transitions.begin() as changes:
                await changes.amend(one.job_id, EventType.PROGRESS, progress=result.progress)
        interval = self._context.poll_interval(one.submission.connection)
        asked = result.poll_after.total_seconds() if result.poll_after else 0
        return min(max(jittered(interval), asked), max(interval, LONGEST_PAUSE_SECONDS))

    def _unreadable(self, one: PolledJob, result: Unreadable) -> float:
        log.warning("status unreadable", connection=one.submission.connection, detail=result.detail)
        interval = self._context.poll_interval(one.submission.connection)
        asked = result.poll_after.total_seconds() if result.poll_after else 0
        return min(max(exponential(2, first=interval, longest=LONGEST_PAUSE_SECONDS), asked), LONGEST_PAUSE_SECONDS)

    async def _missing(self, one: PolledJob) -> float | None:
        if one.rendering.cancel_outcome in (CancelOutcome.REQUESTED, CancelOutcome.CONFIRMED):
            # Some providers delete a canceled job.
            await self._render_results.canceled(one.claim, one.submission, Canceled())
            return None
        async with self._context.transitions.begin() as changes:
            text = "The provider does not know the job at present; it is polled again before the job fails."
            await changes.notice(one.job_id, text)
            missing_for = await submissions.mark_missing(changes.conn, one.submission.id)
            lost = missing_for >= self._context.settings.lost_after
            if not lost and not one.overdue:
                pause = max(self._context.poll_interval(one.submission.connection), missing_for / 4)
                await schedule.defer(changes.conn, [(one.claim, min(pause, LONGEST_PAUSE_SECONDS))])
                return None
        if lost:
            await self._render_results.lost(one.claim, one.submission)
        else:
            await self._render_results.abandoned(one.claim, one.submission, errors.TIMEOUT)
        return None

    async def _cancel(self, one: PolledJob, provider: Provider) -> float | None:
        assert one.submission.remote_id is not None
        result = await provider.cancel(one.submission.remote_id)
        log.info("cancel requested from the provider", job=encode(Prefix.JOB, one.job_id), result=result.value)
        await failpoint(Failpoint.UPSTREAM_CANCELED)
        if result is CancelOutcome.CONFIRMED:
            await persist(lambda: self._render_results.canceled(one.claim, one.submission, Canceled()))
            return None
        if result is not CancelOutcome.FAILED:
            await self._render_results.cancel_replied(one.claim, result)
        return CANCEL_PAUSE_SECONDS

    async def _timed_out(self, one: PolledJob, provider: Provider, status: Pending | Unreadable) -> None:
        assert one.submission.remote_id is not None
        # An unreadable status may hide a video that has just finished, which a cancel would delete at some providers.
        result = await provider.cancel(one.submission.remote_id) if isinstance(status, Pending) else None
        log.info("deadline passed", job=encode(Prefix.JOB, one.job_id), cancel=result)
        await self._render_results.abandoned(one.claim, one.submission, errors.TIMEOUT)
