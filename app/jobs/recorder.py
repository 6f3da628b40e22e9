"""A change of a job, and everything that must be written with it: the row, its event, and the webhooks it owes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.backoff import exponential
from app.db import NOW, Database, is_outage
from app.events.service import EventService
from app.jobs import ledger, repository, schemas
from app.jobs.records import Job
from app.jobs.states import EVENTS, ChargeCertainty, State
from app.lanes import Overtaken
from app.providers.base import BillsOn
from app.webhooks.service import WebhookService

PERSIST_TRIES = 12

T = TypeVar("T")

log = structlog.get_logger()


class Recorder:
    """Writes in the caller's transaction; never commits, never rings."""

    def __init__(self, events: EventService, webhooks: WebhookService) -> None:
        self._events = events
        self._webhooks = webhooks

    async def created(self, connection: AsyncConnection, job: Job) -> None:
        """Note a job that was just inserted."""
        await self._note(connection, job, EVENTS[State.QUEUED])

    async def move(
        self,
        connection: AsyncConnection,
        job_id: UUID,
        to: State,
        *,
        from_: Collection[State],
        fence: int | None,
        next_in: float = 0,
        assets: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Job:
        """`repository.move`, with its event and webhooks. ``assets`` are the ids of the files that the move brings."""
        job = await repository.move(connection, job_id, to, from_=from_, fence=fence, next_in=next_in, **values)
        await self._note(connection, job, EVENTS[to], assets)
        return job

    async def amend(self, connection: AsyncConnection, job_id: UUID, event_type: str, **values: Any) -> Job:
        """`repository.amend`, with its event."""
        job = await repository.amend(connection, job_id, **values)
        await self._note(connection, job, event_type)
        return job

    async def notice(self, connection: AsyncConnection, job_id: UUID, words: str) -> None:
        """Say what a live job is waiting for, once."""
        job = await repository.notice(connection, job_id, words)
        if job is not None:
            await self._note(connection, job, "job.waiting")

    async def accepted(
        self,
        database: Database,
        *,
        job_id: UUID,
        submission_id: UUID,
        remote_id: str,
        cost_limit: Decimal | None,
        bills_on: BillsOn,
        next_in: float,
        raw: Any = None,
    ) -> None:
        """Record that a provider holds the job, whoever found out and however late: evidence needs no fence.

        Raises:
            IntegrityError: the remote id belongs to another submission.
        """
        certainty = ChargeCertainty.CERTAIN if bills_on is BillsOn.ACCEPTANCE else ChargeCertainty.NONE
        async with database.begin() as connection:
            await ledger.accept(
                connection,
                submission_id,
                remote_id=remote_id,
                cost_limit=cost_limit,
                charge_certainty=certainty,
                raw=raw,
            )
            with suppress(Overtaken):  # the job has moved on; the ledger knows all the same
                async with connection.begin_nested():
                    await self.move(
                        connection,
                        job_id,
                        State.RUNNING,
                        from_=(State.SUBMITTING, State.SUBMIT_UNKNOWN),
                        fence=None,
                        next_in=next_in,
                        started_at=NOW,
                    )

    async def _note(
        self, connection: AsyncConnection, job: Job, event_type: str, assets: Mapping[str, str] | None = None
    ) -> None:
        data = schemas.describe(job, assets)
        event_id = await self._events.append(
            connection,
            account_id=job.account_id,
            subject_id=job.id,
            event_type=event_type,
            version=job.version,
            data=data,
        )
        if job.final and job.webhook_url is not None:
            await self._webhooks.publish(
                connection,
                account_id=job.account_id,
                subject_id=job.id,
                event_id=event_id,
                event_type=event_type,
                url=job.webhook_url,
                payload=data,
            )


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write what must not be forgotten (a remote id, an outcome): again and again while the database is away.

    ``write`` is a whole transaction that may run twice.

    Raises:
        SQLAlchemyError, OSError: the database stayed away for minutes.
    """
    for attempt in range(1, PERSIST_TRIES):
        try:
            return await write()
        except (SQLAlchemyError, OSError) as error:
            if not is_outage(error):
                raise
            log.warning("outcome not written yet", attempt=attempt, error=repr(error))
            await asyncio.sleep(exponential(attempt, first=0.1, longest=10))
    return await write()
