"""Remote jobs and their lifecycle.

A job waits (a tenth of its duration), renders, and ends. Where a dialect limits concurrency, it may be throttled first.
:mod:`app.sandbox.video_files` renders the video meanwhile; the job ends once its duration has passed and the video
exists.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from app.sandbox.inputs import InvalidInput
from app.sandbox.ledger import Ledger, Submission
from app.sandbox.phases import Phase
from app.sandbox.picture import Shot
from app.sandbox.script import JobFailure, Script
from app.sandbox.settings import SandboxSettings
from app.sandbox.video_files import PendingVideo, Video, Videos, VideosClosed

WAITING_SHARE = 0.1
NOTHING = Decimal(0)


@dataclass(slots=True, eq=False)
class RemoteJob:
    """One remote job. Times are Unix seconds.

    ``external_id`` is the caller's id for the job, where the dialect keeps one. ``on_change`` is called on every phase
    change, the first phase included. ``clock_error`` is how many seconds the server's clock is fast; the job's own
    times follow that clock. ``lost_after_read`` makes the server lose the job after its first status read.
    ``unusable_input`` makes the job fail at its end. ``read_inputs`` reads the inputs before the render, if that was
    left for later, and gives the video to render with them.
    """

    submission: Submission
    shot: Shot
    script: Script
    duration: float
    external_id: str | None = None
    on_change: Callable[["RemoteJob"], None] | None = None
    clock_error: float = 0.0
    lost_after_read: bool = False
    unusable_input: bool = False
    read_inputs: Callable[[], Awaitable[Shot]] | None = None
    created_at: float = 0.0
    rendering_since: float | None = None
    finished_at: float | None = None
    pending_video: PendingVideo | None = None
    video: Video | None = None
    task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.submission.remote_id

    @property
    def phase(self) -> Phase:
        return self.submission.phase

    @property
    def progress(self) -> float:
        """From 0 to 1; 1 only after success. Never decreases."""
        if self.phase is Phase.SUCCEEDED:
            return 1.0
        if self.rendering_since is None:
            return 0.0
        share = (time.monotonic() - self.rendering_since) / max(self.duration, 0.001)
        made = self.pending_video.progress if self.pending_video else 1.0
        return max(0.0, min(share, made, 0.99))

    @property
    def remaining(self) -> float:
        """Estimated seconds until the job can finish."""
        since = self.rendering_since
        return self.duration if since is None else max(0.0, self.duration - (time.monotonic() - since))

    def enter(self, phase: Phase) -> None:
        """Set the phase and report the change."""
        changed = phase is not self.phase
        self.submission.phase = phase
        if changed:
            self.notify()

    def finish(self, phase: Phase) -> None:
        """Enter a final phase and record the time in the ledger."""
        now = datetime.now(UTC)
        self.finished_at = now.timestamp() + self.clock_error
        self.submission.finished_at = now
        self.enter(phase)

    def as_accepted(self) -> "RemoteJob":
        """The job as accepted, even if it finished before the reply was written."""
        submission = replace(self.submission, phase=Phase.WAITING, failure=None)
        return replace(self, submission=submission, rendering_since=None, finished_at=None, video=None)

    def notify(self) -> None:
        if self.on_change is not None:
            self.on_change(self)


class Store:
    """All remote jobs of this process, by dialect."""

    def __init__(self, settings: SandboxSettings, videos: Videos, ledger: Ledger) -> None:
        self._settings = settings
        self._videos = videos
        self._ledger = ledger
        self._jobs: dict[str, dict[str, RemoteJob]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: dict[str, asyncio.Semaphore] = {}

    def accept(
        self,
        submission: Submission,
        shot: Shot,
        script: Script,
        *,
        concurrency_key: str | None = None,
        external_id: str | None = None,
        on_change: Callable[[RemoteJob], None] | None = None,
        lost_after_read: bool = False,
        unusable_input: bool = False,
        read_inputs: Callable[[], Awaitable[Shot]] | None = None,
    ) -> RemoteJob:
        """Accept a job and charge for it. Jobs with one ``concurrency_key`` share a concurrency limit."""
        self._ledger.note(submission)
        seconds = self._settings.render_seconds if self._settings.render else 0.0
        clock_error = (
            script.number("ahead") - script.number("behind") + self._settings.clocks.get(submission.dialect, 0)
        )
        job = RemoteJob(
            submission,
            shot,
            script,
            seconds + script.number("slow"),
            external_id,
            on_change,
            clock_error,
            lost_after_read,
            unusable_input,
            read_inputs,
            created_at=time.time() + clock_error,
        )
        self._jobs[submission.dialect][job.id] = job
        job.notify()
        if job.duration == 0 and read_inputs is None and not (script.has("never") or script.has("late")):
            job.video = self._videos.instant
            self._end(job)
            return job
        job.task = asyncio.create_task(self._run(job, self._slot(concurrency_key)))
        self._tasks.add(job.task)
        job.task.add_done_callback(self._tasks.discard)
        return job

    def find(self, dialect: str, remote_id: str) -> RemoteJob | None:
        return self._jobs[dialect].get(remote_id)

    def named(self, dialect: str, external_id: str) -> list[RemoteJob]:
        """The jobs with this external id."""
        return [job for job in self._jobs[dialect].values() if job.external_id == external_id]

    def listed(self, dialect: str) -> list[RemoteJob]:
        """The jobs of a dialect, oldest first."""
        return list(self._jobs[dialect].values())

    def accepted(self, dialect: str, model: str) -> int:
        """How many jobs of a model the dialect has."""
        return sum(job.submission.model == model for job in self._jobs[dialect].values())

    def cancel(self, job: RemoteJob, *, refund: bool) -> None:
        """Stop an unfinished job."""
        assert job.task is not None  # only a finished job has no task
        job.task.cancel()
        job.submission.canceled = True
        job.submission.final_cost = NOTHING if refund else job.submission.bill.usd
        job.finish(Phase.CANCELED)

    def delete(self, job: RemoteJob) -> None:
        """Remove the job from the store; a running render continues."""
        self._jobs[job.submission.dialect].pop(job.id, None)

    def lose(self, job: RemoteJob) -> None:
        """Drop the job and its render as a restarting server does: no callback and no charge."""
        self.delete(job)
        job.on_change = None
        if job.task is not None:
            job.task.cancel()
        job.submission.final_cost = NOTHING
        job.finish(Phase.CANCELED)

    async def forget(self) -> None:
        """Cancel all job tasks and drop all jobs."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._jobs.clear()
        self._slots.clear()

    def _slot(self, name: str | None) -> AbstractAsyncContextManager[object]:
        if name is None:
            return nullcontext()
        return self._slots.setdefault(name, asyncio.Semaphore(self._settings.runway_concurrency))

    async def _run(self, job: RemoteJob, slot: AbstractAsyncContextManager[object]) -> None:
        script = job.script
        if job.read_inputs is None:
            self._order(job)
        if isinstance(slot, asyncio.Semaphore) and slot.locked():
            job.enter(Phase.THROTTLED)
        async with slot:
            job.enter(Phase.WAITING)
            await asyncio.sleep(job.duration * WAITING_SHARE)
            await self._read_inputs(job)
            job.rendering_since = time.monotonic()
            job.enter(Phase.RENDERING)
            await asyncio.sleep(job.duration * (1 - WAITING_SHARE) + script.number("late"))
            if script.has("never"):
                await asyncio.Event().wait()
            await self._collect(job)
            self._end(job)

    def _order(self, job: RemoteJob) -> None:
        failed = job.unusable_input or (job.submission.failure or job.script.failure) is not None
        if self._settings.render and not failed:
            job.pending_video = self._videos.order(job.shot)

    async def _read_inputs(self, job: RemoteJob) -> None:
        """Read the inputs if that was left for later."""
        if job.read_inputs is None:
            return
        try:
            job.shot = await job.read_inputs()
        except InvalidInput:
            job.unusable_input = True
        except OSError:
            job.submission.failure = JobFailure.INTERNAL
        self._order(job)

    async def _collect(self, job: RemoteJob) -> None:
        try:
            job.video = await job.pending_video.video() if job.pending_video else self._videos.instant
        except (OSError, VideosClosed):
            job.submission.failure = JobFailure.INTERNAL

    @staticmethod
    def _end(job: RemoteJob) -> None:
        submission = job.submission
        if job.unusable_input:
            submission.failure = JobFailure.INVALID_INPUT
        submission.failure = submission.failure or job.script.failure
        submission.canceled = job.script.end is Phase.CANCELED
        refunded = submission.canceled or submission.failure in submission.bill.refunded
        submission.final_cost = NOTHING if refunded else submission.bill.usd
        if submission.canceled:
            job.finish(Phase.CANCELED)
        else:
            job.finish(Phase.FAILED if submission.failure else Phase.SUCCEEDED)
