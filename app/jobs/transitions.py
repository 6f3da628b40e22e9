"""Changes of jobs: each with its event and its webhooks; after the commit the lanes that have work are rung."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.schemas import Asset
from app.events import repository as events
from app.events.repository import NewEvent
from app.events.types import EventType
from app.failpoints import Failpoint, failpoint
from app.ids import new_id
from app.infra.db import Database
from app.infra.queue import Bell, Lane
from app.jobs.db import file_uses, reconciliations, repository, schedule
from app.jobs.failover import NextRoute
from app.jobs.payloads import JobEventData
from app.jobs.records import AcceptedRequest, Job, JobChange, Submission, changed_specs
from app.jobs.states import EVENTS, LANES, WEBHOOK_EVENTS, State, lanes_of
from app.providers.job_spec import JobSpec
from app.webhooks.service import WebhookService


class Changes:
    """The changes within one transaction, ``conn``."""

    def __init__(self, conn: AsyncConnection, webhooks: WebhookService) -> None:
        self.conn = conn
        #: The lanes to ring after the commit.
        self.lanes: set[Lane] = set()
        self._webhooks = webhooks

    async def move(
        self,
        job_id: UUID,
        to: State,
        *,
        from_: Collection[State],
        fence: int | None,
        next_in: float = 0,
        route: NextRoute | None = None,
        assets: Sequence[Asset] = (),
        **values: Unpack[JobChange],
    ) -> Job:
        """`repository.move`, with its event and webhooks. ``assets`` are the files stored with it."""
        job = await repository.move(
            self.conn, job_id, to, from_=from_, fence=fence, next_in=next_in, route=route, **values
        )
        self.lanes |= lanes_of(from_, to)
        await self._note(job, EVENTS[to], assets)
        return job

    async def record_inputs(self, job_id: UUID, specs: Sequence[JobSpec], file_ids: Collection[UUID]) -> None:
        """Record a step of a job's preparation, and the files that it uses now. It is no event."""
        await repository.record_inputs(self.conn, job_id, changed_specs(specs))
        await file_uses.add(self.conn, job_id, file_ids)

    async def amend(self, job_id: UUID, event_type: EventType, **values: Unpack[JobChange]) -> Job:
        """`repository.amend`, with its event."""
        job = await repository.amend(self.conn, job_id, **values)
        await self._note(job, event_type)
        return job

    async def notice(self, job_id: UUID, text: str) -> None:
        """Set the notice of a live job. Setting the same one again writes no event."""
        job = await repository.notice(self.conn, job_id, text)
        if job is not None:
            await self._note(job, EventType.WAITING)

    async def recount(self, job_id: UUID) -> None:
        """Sum a job's cost after its ledger changed: the only change of a job that has ended."""
        job = await repository.recount(self.conn, job_id)
        await self._note(job, EventType.COST_CHANGED)

    async def video_late(self, job_id: UUID, assets: Sequence[Asset]) -> None:
        """Record the video of a job that had ended without one. Its state stays; its cost is summed again."""
        job = await repository.recount(self.conn, job_id)
        await self._note(job, EventType.VIDEO_LATE, assets)

    async def make_due(self, job: Job) -> None:
        """Make a job due at once: its provider may have a new status."""
        await schedule.make_due(self.conn, job)
        self.lanes.add(LANES[job.state])

    async def reconcile(self, submission: Submission, *, next_in: float, last: float) -> None:
        """Poll a submission that its job no longer waits for, for at most ``last`` seconds."""
        await reconciliations.add(self.conn, submission.id, submission.job_id, next_in=next_in, last=last)
        self.lanes.add(Lane.RECONCILE)

    async def _note(self, job: Job, event_type: EventType, assets: Sequence[Asset] = ()) -> None:
        data = JobEventData.of(job, assets)
        event = NewEvent(new_id(), job.account_id, job.id, event_type.value, job.version, data.logged())
        await events.append(self.conn, event)
        if event_type in WEBHOOK_EVENTS and job.webhook_url is not None:
            await self._webhooks.publish(
                self.conn,
                account_id=job.account_id,
                subject_id=job.id,
                event_id=event.id,
                event_type=event.type,
                url=job.webhook_url,
                payload=data.model_dump(mode="json"),
            )
            self.lanes.add(Lane.DELIVER)


class Transitions:
    """Opens the transactions that change jobs, and rings the lanes that have work after them."""

    def __init__(self, database: Database, webhooks: WebhookService, bell: Bell) -> None:
        self._database = database
        self._webhooks = webhooks
        self._bell = bell

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Changes]:
        """One transaction. After its commit the lanes of its changes are rung."""
        async with self._database.begin() as conn:
            changes = Changes(conn, self._webhooks)
            yield changes
        if changes.lanes:
            self._bell.ring(*sorted(changes.lanes))

    async def create(self, accepted: Sequence[AcceptedRequest]) -> dict[UUID, Job]:
        """`repository.create` in a separate transaction, with the first event of each job."""
        await failpoint(Failpoint.CREATE_ACCEPTED)
        async with self._database.single() as conn:
            jobs = await repository.create(conn, [(one, _first_event(one)) for one in accepted])
        await failpoint(Failpoint.CREATE_COMMITTED)
        if jobs:
            self._bell.ring(*sorted({LANES[job.state] for job in jobs.values()}))
        return jobs


def _first_event(accepted: AcceptedRequest) -> NewEvent:
    data = JobEventData.first(accepted).logged()
    return NewEvent(new_id(), accepted.account_id, accepted.id, EVENTS[accepted.state].value, 1, data)
