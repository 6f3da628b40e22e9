"""What all steps of a worker share. Built once per process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.backoff import exponential
from app.claims import ClaimLost
from app.infra.db import Database, is_outage
from app.infra.queue import Lane, Step
from app.jobs import billing
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db import schedule
from app.jobs.engine.inputs import SentInputs
from app.jobs.records import Claim, Job, Submission, SubmissionChange
from app.jobs.transitions import Changes, Transitions
from app.providers.base import BillsOn, Finished, Provider, ProviderRequest
from app.providers.registry import Registry, UnknownConnection
from app.providers.transport import Call
from app.settings import JobSettings

LONGEST_PERSIST_SECONDS = 5
UNKNOWN_POLL_SECONDS = 60

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineContext:
    """Shared by the steps. ``lease`` is the duration of a claim in seconds."""

    database: Database
    registry: Registry
    transitions: Transitions
    settings: JobSettings
    lease: float
    callbacks: CallbackUrls
    inputs: SentInputs

    def request(self, job: Job, model: str, upstream_model: str, provider: Provider) -> ProviderRequest:
        """What one of a job's models is asked for, with its inputs in their places.

        Raises:
            NoWay: an input cannot be sent to this provider.
        """
        request = job.spec_for(model).provider_request(upstream_model)
        return self.inputs.placed(job, request, provider.traits)

    async def claim(self, lane: Lane, limit: int) -> Sequence[Claim]:
        """Take up to ``limit`` due jobs of a lane."""
        async with self.database.single() as conn:
            return await schedule.claim(conn, lane, limit, self.lease)

    async def next_due(self, lane: Lane) -> float | None:
        """Seconds until the lane's next job is due; None when it has none."""
        async with self.database.read() as conn:
            return await schedule.next_due(conn, lane)

    def provider(self, submission: Submission) -> Provider | None:
        """The provider of a submission; None when its connection is no longer configured."""
        try:
            return self.registry.provider(submission.connection)
        except UnknownConnection:
            return None

    def bills_on(self, connection: str) -> BillsOn:
        """When a connection charges; on acceptance is assumed for one that is no longer configured."""
        try:
            return self.registry.provider(connection).traits.bills_on
        except UnknownConnection:
            return BillsOn.ACCEPTANCE

    def poll_interval(self, connection: str) -> float:
        """Seconds between two polls of a remote job."""
        try:
            return self.registry.poll_interval(connection)
        except UnknownConnection:
            return UNKNOWN_POLL_SECONDS

    async def reconcile(self, changes: Changes, submission: Submission) -> None:
        """Poll a submission that its job no longer waits for."""
        pause = self.poll_interval(submission.connection)
        await changes.reconcile(submission, next_in=pause, last=self.settings.watch_for)

    def finished(self, submission: Submission, result: Finished) -> SubmissionChange:
        """The columns of the submission of a finished render."""
        cost, certainty = billing.of_success(submission, self.bills_on(submission.connection), result.cost)
        return {"results": list(result.results), "cost": cost, "charge_certainty": certainty, "raw": result.raw}

    def paid_call(self, provider: Provider, connection: str, request: ProviderRequest, submission_id: UUID) -> Call:
        """The paid request of a submission: the same bytes each time it is made."""
        callback_url = self.callbacks.of(connection, submission_id) if provider.traits.callbacks else None
        return provider.create_call(request, submission_id, callback_url)

    def holding(self, claims: Sequence[Claim]) -> AbstractAsyncContextManager[None]:
        """Extend the leases of claims while the block runs; cancel the block when all of them are lost.

        Raises:
            ClaimLost: other workers have the jobs.
        """
        return self.extending(lambda conn: schedule.extend(conn, claims, self.lease))

    @asynccontextmanager
    async def extending(self, extend: Callable[[AsyncConnection], Awaitable[bool]]) -> AsyncIterator[None]:
        """Call ``extend`` each third of the lease while the block runs; cancel the block when it returns False.

        Raises:
            ClaimLost: another worker has it.
        """
        step = asyncio.current_task()
        assert step is not None
        renewal = asyncio.create_task(self._renew(extend, step), name="lease")
        try:
            yield
        except asyncio.CancelledError:
            if renewal.done() and not renewal.cancelled():
                step.uncancel()
                raise ClaimLost from None
            raise
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    async def _renew(self, extend: Callable[[AsyncConnection], Awaitable[bool]], step: "asyncio.Task[object]") -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with self.database.begin() as conn:
                    held = await extend(conn)
            except (SQLAlchemyError, OSError) as error:
                log.warning("lease not extended", error=repr(error))
                continue
            if not held:
                step.cancel()
                return


class ScheduledStep(Step[Claim]):
    """A step that claims the due jobs of its lane on the schedule."""

    _context: EngineContext

    async def claim(self, limit: int) -> AsyncIterator[Claim]:
        for claim in await self._context.claim(self.lane, limit):
            yield claim

    async def next_due(self) -> float | None:
        return await self._context.next_due(self.lane)


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Retry a write for as long as the database is unavailable. ``write`` is a whole transaction that may run twice."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await write()
        except (SQLAlchemyError, OSError) as error:
            if not is_outage(error):
                raise
            log.error("database unavailable; the result will be recorded later", attempt=attempt, error=repr(error))  # noqa: TRY400
            await asyncio.sleep(exponential(attempt, first=0.1, longest=LONGEST_PERSIST_SECONDS))
