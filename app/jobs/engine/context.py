"""What every step of the worker needs, opened once."""

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
from app.claims import Overtaken
from app.infra.db import Database, is_outage
from app.infra.queue import Bell, Lane
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db import reconciliations, schedule
from app.jobs.records import Claim, Submission
from app.jobs.transitions import Recorder
from app.providers.base import BillsOn, Order, Provider
from app.providers.registry import Registry, UnknownConnection
from app.providers.transport import Call
from app.settings import JobSettings

LONGEST_PERSIST_SECONDS = 5
UNKNOWN_POLL_SECONDS = 60

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Workbench:
    """Shared by all that advance jobs. ``lease`` is seconds a claim lasts."""

    database: Database
    registry: Registry
    recorder: Recorder
    bell: Bell
    settings: JobSettings
    lease: float
    callbacks: CallbackUrls

    async def claim(self, lane: Lane, limit: int) -> Sequence[Claim]:
        """Take up to ``limit`` due jobs of a lane."""
        async with self.database.single() as connection:
            return await schedule.claim(connection, lane, limit, self.lease)

    def provider(self, submission: Submission) -> Provider | None:
        """Where a submission was bought; None when that connection is no longer configured."""
        try:
            return self.registry.provider(submission.connection)
        except UnknownConnection:
            return None

    def bills_on(self, upstream: str) -> BillsOn:
        """When a connection charges; the worst is assumed of one that is no longer configured."""
        try:
            return self.registry.provider(upstream).traits.bills_on
        except UnknownConnection:
            return BillsOn.ACCEPTANCE

    def poll_interval(self, upstream: str) -> float:
        """Seconds between two looks at a remote job."""
        try:
            return self.registry.poll_interval(upstream)
        except UnknownConnection:
            return UNKNOWN_POLL_SECONDS

    async def watch(self, connection: AsyncConnection, submission: Submission) -> None:
        """Go on looking at a purchase whose job no longer waits for it."""
        pause = self.poll_interval(submission.connection)
        await reconciliations.add(
            connection, submission.id, submission.job_id, next_in=pause, last=self.settings.watch_for
        )

    def paid_call(self, provider: Provider, upstream: str, order: Order, submission_id: UUID) -> Call:
        """The request that buys a film; the same bytes for the same submission."""
        callback_url = self.callbacks.of(upstream, submission_id) if provider.traits.callbacks else None
        return provider.create_call(order, submission_id, callback_url)

    def holding(self, claims: Sequence[Claim]) -> AbstractAsyncContextManager[None]:
        """Keep claims for as long as the block runs, however long that is; end the block when all of them are lost.

        Raises:
            Overtaken: somebody else has the jobs now.
        """
        return self.extending(lambda connection: schedule.extend(connection, claims, self.lease))

    @asynccontextmanager
    async def extending(self, extend: Callable[[AsyncConnection], Awaitable[bool]]) -> AsyncIterator[None]:
        """Give a sign of life now and then while the block runs; end the block when ``extend`` says that it is lost.

        Raises:
            Overtaken: somebody else goes on with it.
        """
        step = asyncio.current_task()
        assert step is not None
        beat = asyncio.create_task(self._beat(extend, step), name="lease")
        try:
            yield
        except asyncio.CancelledError:
            if beat.done() and not beat.cancelled():
                step.uncancel()
                raise Overtaken from None
            raise
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat

    async def _beat(self, extend: Callable[[AsyncConnection], Awaitable[bool]], step: "asyncio.Task[object]") -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with self.database.begin() as connection:
                    held = await extend(connection)
            except (SQLAlchemyError, OSError) as error:
                log.warning("lease not extended", error=repr(error))
                continue
            if not held:
                step.cancel()
                return


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write what must not be forgotten, again and again for as long as the database is away.

    ``write`` is a whole transaction that may run twice.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await write()
        except (SQLAlchemyError, OSError) as error:
            if not is_outage(error):
                raise
            log.error("outcome not written yet", attempt=attempt, error=repr(error))  # noqa: TRY400
            await asyncio.sleep(exponential(attempt, first=0.1, longest=LONGEST_PERSIST_SECONDS))
