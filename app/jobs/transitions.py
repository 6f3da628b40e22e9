"""A change of a job, and everything that must be written with it: the row, its event, and the webhooks it owes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.events import repository as events
from app.events.repository import Fact
from app.ids import new_id
from app.jobs import payloads
from app.jobs.db import repository
from app.jobs.failover import Turn
from app.jobs.records import Draft, Job
from app.jobs.states import EVENTS, FILM_LATE, WEBHOOK_EVENTS, State
from app.webhooks.service import WebhookService

LATER = datetime.max.replace(tzinfo=UTC)


class Recorder:
    """Writes in the caller's transaction; never commits, never rings."""

    def __init__(self, webhooks: WebhookService) -> None:
        self._webhooks = webhooks

    async def create(self, connection: AsyncConnection, drafts: Sequence[Draft]) -> dict[UUID, Job]:
        """`repository.create`, with the first event of each job."""
        return await repository.create(connection, [(draft, _first(draft)) for draft in drafts])

    async def move(
        self,
        connection: AsyncConnection,
        job_id: UUID,
        to: State,
        *,
        from_: Collection[State],
        fence: int | None,
        next_in: float = 0,
        turn: Turn | None = None,
        assets: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Job:
        """`repository.move`, with its event and webhooks. ``assets`` are the ids of the files that the move brings."""
        job = await repository.move(
            connection, job_id, to, from_=from_, fence=fence, next_in=next_in, turn=turn, **values
        )
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

    async def recount(self, connection: AsyncConnection, job_id: UUID) -> None:
        """Sum up a job's cost anew after its ledger changed: the one thing that may change in a job that has ended."""
        job = await repository.recount(connection, job_id)
        await self._note(connection, job, "job.cost_changed")

    async def film_late(self, connection: AsyncConnection, job_id: UUID, assets: Mapping[str, str]) -> None:
        """Note the film of a job that had ended without one. Its state stays; its cost is summed up anew."""
        job = await repository.recount(connection, job_id)
        await self._note(connection, job, FILM_LATE, assets)

    async def _note(
        self, connection: AsyncConnection, job: Job, event_type: str, assets: Mapping[str, str] | None = None
    ) -> None:
        fact = _fact(job, event_type, assets)
        await events.append(connection, fact)
        if event_type in WEBHOOK_EVENTS and job.webhook_url is not None:
            await self._webhooks.publish(
                connection,
                account_id=job.account_id,
                subject_id=job.id,
                event_id=fact.id,
                event_type=event_type,
                url=job.webhook_url,
                payload=fact.data,
            )


def _first(draft: Draft) -> Fact:
    # An event has its own time, so those of the job, which only the database knows, are of no matter.
    return _fact(draft.job(LATER, LATER), EVENTS[State.QUEUED])


def _fact(job: Job, event_type: str, assets: Mapping[str, str] | None = None) -> Fact:
    return Fact(new_id(), job.account_id, job.id, event_type, job.version, payloads.describe(job, assets))
