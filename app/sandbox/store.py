"""Remote jobs: the sandbox's own records, and the life that each of them leads.

A job waits (a tenth of its time), renders, and ends. Where a dialect limits how many run at once, it is throttled
first. The film is made meanwhile by :mod:`app.sandbox.video_files`; a job ends when its time is over and the film
is there.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from app.sandbox.ledger import Ledger, Purchase
from app.sandbox.phases import Phase
from app.sandbox.picture import Shot
from app.sandbox.script import Script, Verdict
from app.sandbox.settings import SandboxSettings
from app.sandbox.video_files import Film, Films, FilmsClosed, Making

WAITING_SHARE = 0.1
NOTHING = Decimal(0)


@dataclass(slots=True, eq=False)
class RemoteJob:
    """One remote job. Times are Unix seconds.

    ``external_id`` is the caller's name for it, where the dialect keeps one. ``watch`` is called at every change of the
    phase, the first one included. ``clock_error`` is how many seconds the server's clock, by which the job's own times
    are, is fast. A ``doomed`` job is lost after its first status read.
    """

    purchase: Purchase
    shot: Shot
    script: Script
    duration: float
    external_id: str | None = None
    watch: Callable[["RemoteJob"], None] | None = None
    clock_error: float = 0.0
    doomed: bool = False
    created_at: float = 0.0
    rendering_since: float | None = None
    finished_at: float | None = None
    making: Making | None = None
    film: Film | None = None
    life: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.purchase.remote_id

    @property
    def phase(self) -> Phase:
        return self.purchase.phase

    @property
    def progress(self) -> float:
        """From 0 to 1; 1 only when finished well. Never falls."""
        if self.phase is Phase.SUCCEEDED:
            return 1.0
        if self.rendering_since is None:
            return 0.0
        share = (time.monotonic() - self.rendering_since) / max(self.duration, 0.001)
        made = self.making.progress if self.making else 1.0
        return max(0.0, min(share, made, 0.99))

    @property
    def remaining(self) -> float:
        """Seconds until it can be finished, as far as one can tell."""
        since = self.rendering_since
        return self.duration if since is None else max(0.0, self.duration - (time.monotonic() - since))

    def enter(self, phase: Phase) -> None:
        """Go on to a phase."""
        changed = phase is not self.phase
        self.purchase.phase = phase
        if changed:
            self.tell()

    def finish(self, phase: Phase) -> None:
        """Come to an end, in the books too."""
        now = datetime.now(UTC)
        self.finished_at = now.timestamp() + self.clock_error
        self.purchase.finished_at = now
        self.enter(phase)

    def as_accepted(self) -> "RemoteJob":
        """The job as it was when it was accepted, even where it was finished before the reply could be written."""
        purchase = replace(self.purchase, phase=Phase.WAITING, verdict=None)
        return replace(self, purchase=purchase, rendering_since=None, finished_at=None, film=None)

    def tell(self) -> None:
        if self.watch is not None:
            self.watch(self)


class Store:
    """Every remote job of this process, by dialect."""

    def __init__(self, settings: SandboxSettings, films: Films, ledger: Ledger) -> None:
        self._settings = settings
        self._films = films
        self._ledger = ledger
        self._jobs: dict[str, dict[str, RemoteJob]] = defaultdict(dict)
        self._lives: set[asyncio.Task[None]] = set()
        self._lanes: dict[str, asyncio.Semaphore] = {}

    def accept(
        self,
        purchase: Purchase,
        shot: Shot,
        script: Script,
        *,
        lane: str | None = None,
        external_id: str | None = None,
        watch: Callable[[RemoteJob], None] | None = None,
        doomed: bool = False,
    ) -> RemoteJob:
        """Take a job in, and charge for it. ``lane`` names what limits how many run at once."""
        self._ledger.note(purchase)
        seconds = self._settings.render_seconds if self._settings.render else 0.0
        clock_error = script.number("ahead") - script.number("behind") + self._settings.clocks.get(purchase.dialect, 0)
        job = RemoteJob(
            purchase,
            shot,
            script,
            seconds + script.number("slow"),
            external_id,
            watch,
            clock_error,
            doomed,
            created_at=time.time() + clock_error,
        )
        self._jobs[purchase.dialect][job.id] = job
        job.tell()
        if job.duration == 0 and not (script.has("never") or script.has("late")):
            job.film = self._films.instant
            self._end(job)
            return job
        job.life = asyncio.create_task(self._live(job, self._lane(lane)))
        self._lives.add(job.life)
        job.life.add_done_callback(self._lives.discard)
        return job

    def find(self, dialect: str, remote_id: str) -> RemoteJob | None:
        return self._jobs[dialect].get(remote_id)

    def named(self, dialect: str, external_id: str) -> list[RemoteJob]:
        """The jobs that callers know by this name of their own."""
        return [job for job in self._jobs[dialect].values() if job.external_id == external_id]

    def listed(self, dialect: str) -> list[RemoteJob]:
        """The jobs of a dialect, oldest first."""
        return list(self._jobs[dialect].values())

    def accepted(self, dialect: str, model: str) -> int:
        """How many jobs of a model the dialect holds."""
        return sum(job.purchase.model == model for job in self._jobs[dialect].values())

    def cancel(self, job: RemoteJob, *, refund: bool) -> None:
        """Stop a job that is not finished."""
        assert job.life is not None  # only a finished job has none
        job.life.cancel()
        job.purchase.canceled = True
        job.purchase.final_cost = NOTHING if refund else job.purchase.bill.usd
        job.finish(Phase.CANCELED)

    def delete(self, job: RemoteJob) -> None:
        """Forget the record; a render that is under way goes on."""
        self._jobs[job.purchase.dialect].pop(job.id, None)

    def lose(self, job: RemoteJob) -> None:
        """Forget the record and its render, as a server does that restarts: nothing is told, nothing is charged."""
        self.delete(job)
        job.watch = None
        if job.life is not None:
            job.life.cancel()
        job.purchase.final_cost = NOTHING
        job.finish(Phase.CANCELED)

    async def forget(self) -> None:
        """End every life and forget every record."""
        lives = tuple(self._lives)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        self._jobs.clear()
        self._lanes.clear()

    def _lane(self, name: str | None) -> AbstractAsyncContextManager[object]:
        if name is None:
            return nullcontext()
        return self._lanes.setdefault(name, asyncio.Semaphore(self._settings.runway_concurrency))

    async def _live(self, job: RemoteJob, lane: AbstractAsyncContextManager[object]) -> None:
        script = job.script
        if self._settings.render and script.verdict is None:
            job.making = self._films.order(job.shot)
        if isinstance(lane, asyncio.Semaphore) and lane.locked():
            job.enter(Phase.THROTTLED)
        async with lane:
            job.enter(Phase.WAITING)
            await asyncio.sleep(job.duration * WAITING_SHARE)
            job.rendering_since = time.monotonic()
            job.enter(Phase.RENDERING)
            await asyncio.sleep(job.duration * (1 - WAITING_SHARE) + script.number("late"))
            if script.has("never"):
                await asyncio.Event().wait()
            await self._collect(job)
            self._end(job)

    async def _collect(self, job: RemoteJob) -> None:
        try:
            job.film = await job.making.film() if job.making else self._films.instant
        except (OSError, FilmsClosed):
            job.purchase.verdict = Verdict.INTERNAL

    @staticmethod
    def _end(job: RemoteJob) -> None:
        purchase = job.purchase
        purchase.verdict = purchase.verdict or job.script.verdict
        purchase.canceled = job.script.end is Phase.CANCELED
        refunded = purchase.canceled or purchase.verdict in purchase.bill.refunded
        purchase.final_cost = NOTHING if refunded else purchase.bill.usd
        if purchase.canceled:
            job.finish(Phase.CANCELED)
        else:
            job.finish(Phase.FAILED if purchase.verdict else Phase.SUCCEEDED)
