"""The poller: asks providers how their renders are, many at once, and writes the unchanged ones back together."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.backoff import exponential, jittered
from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import failures
from app.jobs.db import schedule, submissions
from app.jobs.db.render_times import RenderTimes
from app.jobs.db.submissions import Rendering
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.render_results import Verdicts
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

#: Whatever a provider asks for: deadlines and cancels must be seen in time.
LONGEST_PAUSE_SECONDS = 60.0
#: A render that somebody wants to cancel is looked at soon again.
CANCEL_PAUSE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Watched:
    """A claimed job, its purchase, and the provider that renders it."""

    claim: Claim
    rendering: Rendering
    provider: Provider | None  # none: its connection is no longer configured

    @property
    def submission(self) -> Submission:
        return self.rendering.submission

    @property
    def job_id(self) -> UUID:
        return self.claim.job_id

    @property
    def overdue(self) -> bool:
        return self.rendering.overdue


class Poller:
    """Advances jobs in the `poll` lane, in batches."""

    lane = Lane.POLL

    def __init__(self, bench: Workbench, times: RenderTimes) -> None:
        self._bench = bench
        self._times = times
        self._verdicts = Verdicts(bench)

    async def claim(self, limit: int) -> Sequence[list[Claim]]:
        """Due jobs, in one batch for each connection: a slow provider holds up nobody else's."""
        # Each statement by itself: a claim that is not followed up runs out.
        async with self._bench.database.single() as connection:
            claims = await schedule.claim(connection, self.lane, limit, self._bench.lease)
            if not claims:
                return []
            upstreams = await submissions.connections_of(connection, [claim.job_id for claim in claims])
        batches: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            batches[upstreams.get(claim.job_id, "")].append(claim)
        return list(batches.values())

    async def advance(self, batch: Sequence[Claim]) -> None:
        """One look at each job of a batch; the unchanged ones are written back together."""
        await checkpoint(Checkpoint.POLL_CLAIMED)
        async with self._bench.holding(batch):
            unchanged = [
                (one, delay) for one, delay in await self._look_at_all(await self._watched(batch)) if delay is not None
            ]
        async with self._bench.database.single() as connection:
            if missed := [one.submission.id for one, _ in unchanged if one.submission.missing_since is not None]:
                await submissions.found_again(connection, missed)
            await schedule.defer(connection, [(one.claim, delay) for one, delay in unchanged])

    async def _watched(self, batch: Sequence[Claim]) -> list[Watched]:
        claims = {claim.job_id: claim for claim in batch}
        async with self._bench.database.read() as connection:
            found = await submissions.rendering(connection, list(claims))
        return [Watched(claims[one.submission.job_id], one, self._bench.provider(one.submission)) for one in found]

    async def _look_at_all(self, watched: Sequence[Watched]) -> list[tuple[Watched, float | None]]:
        """The seconds until the next look at each; None where it has moved on, or must wait for its lease to end."""
        delays = await asyncio.gather(*(self._look(one) for one in watched), return_exceptions=True)
        looked: list[tuple[Watched, float | None]] = []
        for one, delay in zip(watched, delays, strict=True):
            if not isinstance(delay, BaseException):
                looked.append((one, delay))
            elif isinstance(delay, asyncio.CancelledError):
                raise delay
            elif not isinstance(delay, Overtaken):
                log.error("poll failed", job=encode(Prefix.JOB, one.job_id), exc_info=delay)
                if one.overdue:
                    await self._verdicts.given_up(one.claim, one.submission, failures.TIMEOUT)
        return looked

    async def _look(self, one: Watched) -> float | None:
        """Ask once and act on the answer; seconds until the next look where nothing changed."""
        assert one.submission.remote_id is not None
        if one.provider is None:
            return await self._not_configured(one)
        outcome = await one.provider.poll(one.submission.remote_id, fresh=one.submission.missing_since is not None)
        await checkpoint(Checkpoint.POLL_ANSWERED)
        match outcome:
            case Finished():
                self._times.note(one.submission)
                await persist(lambda: self._verdicts.finished(one.claim, one.submission, outcome))
                return None
            case Failed():
                await persist(lambda: self._verdicts.failed(one.claim, one.submission, outcome))
                return None
            case Canceled():
                await persist(lambda: self._verdicts.canceled(one.claim, one.submission, outcome))
                return None
            case Pending() | Missing() | Unreadable():
                return await self._unfinished(one, one.provider, outcome)

    async def _unfinished(
        self, one: Watched, provider: Provider, outcome: Pending | Missing | Unreadable
    ) -> float | None:
        if isinstance(outcome, Missing):
            return await self._missing(one)
        if one.overdue:
            await self._timed_out(one, provider, outcome)
            return None
        if isinstance(outcome, Unreadable):
            return self._unreadable(one, outcome)
        if one.rendering.cancel_requested and one.rendering.cancel_outcome is None:
            return await self._cancel(one, provider)
        return await self._pending(one, outcome)

    async def _not_configured(self, one: Watched) -> float | None:
        if one.overdue:
            await self._verdicts.given_up(one.claim, one.submission, failures.TIMEOUT)
            return None
        words = (
            f"The connection {one.submission.connection} renders this film and is no longer configured; put it back."
        )
        async with self._bench.database.begin() as connection:
            await self._bench.recorder.notice(connection, one.job_id, words)
        return LONGEST_PAUSE_SECONDS

    async def _pending(self, one: Watched, outcome: Pending) -> float:
        if outcome.oddity:
            log.warning("unknown status word", connection=one.submission.connection, word=outcome.oddity)
        if outcome.progress is not None and outcome.progress > one.rendering.progress:
            async with self._bench.database.begin() as connection:
                await self._bench.recorder.amend(connection, one.job_id, "job.progress", progress=outcome.progress)
        interval = self._bench.poll_interval(one.submission.connection)
        asked = outcome.poll_after.total_seconds() if outcome.poll_after else 0
        return min(max(jittered(interval), asked), max(interval, LONGEST_PAUSE_SECONDS))

    def _unreadable(self, one: Watched, outcome: Unreadable) -> float:
        log.warning("status not readable", connection=one.submission.connection, detail=outcome.detail)
        interval = self._bench.poll_interval(one.submission.connection)
        asked = outcome.poll_after.total_seconds() if outcome.poll_after else 0
        return min(max(exponential(2, first=interval, longest=LONGEST_PAUSE_SECONDS), asked), LONGEST_PAUSE_SECONDS)

    async def _missing(self, one: Watched) -> float | None:
        if one.rendering.cancel_outcome in (CancelOutcome.REQUESTED, CancelOutcome.CONFIRMED):
            # Some providers forget a canceled job.
            await self._verdicts.canceled(one.claim, one.submission, Canceled())
            return None
        async with self._bench.database.begin() as connection:
            missing_for = await submissions.mark_missing(connection, one.submission.id)
            words = "The provider does not know the job just now; it is asked again before the job is given up."
            await self._bench.recorder.notice(connection, one.job_id, words)
            lost = missing_for >= self._bench.settings.lost_after
            if not lost and not one.overdue:
                pause = max(self._bench.poll_interval(one.submission.connection), missing_for / 4)
                await schedule.defer(connection, [(one.claim, min(pause, LONGEST_PAUSE_SECONDS))])
                return None
        if lost:
            await self._verdicts.lost(one.claim, one.submission)
        else:
            await self._verdicts.given_up(one.claim, one.submission, failures.TIMEOUT)
        return None

    async def _cancel(self, one: Watched, provider: Provider) -> float | None:
        assert one.submission.remote_id is not None
        outcome = await provider.cancel(one.submission.remote_id)
        log.info("cancel asked upstream", job=encode(Prefix.JOB, one.job_id), outcome=outcome.value)
        await checkpoint(Checkpoint.UPSTREAM_CANCELED)
        if outcome is CancelOutcome.CONFIRMED:
            await persist(lambda: self._verdicts.canceled(one.claim, one.submission, Canceled()))
            return None
        if outcome is not CancelOutcome.FAILED:
            await self._verdicts.cancel_answered(one.claim, outcome)
        return CANCEL_PAUSE_SECONDS

    async def _timed_out(self, one: Watched, provider: Provider, seen: Pending | Unreadable) -> None:
        assert one.submission.remote_id is not None
        # What nobody could read may be a film that was just finished, which a cancel would delete at some providers.
        outcome = await provider.cancel(one.submission.remote_id) if isinstance(seen, Pending) else None
        log.info("deadline passed", job=encode(Prefix.JOB, one.job_id), cancel=outcome)
        await self._verdicts.given_up(one.claim, one.submission, failures.TIMEOUT)
