"""What callers can do with jobs."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.schemas import Asset
from app.assets.service import AssetService
from app.batching import Batcher
from app.claims import Overtaken
from app.errors import Conflict, FieldError, IdempotencyMismatch, InvalidRequest, NotFound
from app.events.service import EventService, Released
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, decode
from app.infra.db import NOW, Database, left_nothing
from app.infra.queue import Bell, Lane
from app.jobs.api.acceptance import Acceptance
from app.jobs.api.forecast import Forecast
from app.jobs.api.requests import NewJob
from app.jobs.api.schemas import JobView
from app.jobs.db import listing, repository, schedule, submissions
from app.jobs.db.schedule import Place
from app.jobs.records import Draft, Job, Submission
from app.jobs.states import State, Status, states_of
from app.jobs.transitions import Recorder
from app.providers.base import CancelOutcome
from app.providers.catalog import Catalog
from app.web.pagination import Page, Paging
from app.webhooks.records import Delivery
from app.webhooks.service import WebhookService


@dataclass(frozen=True, slots=True)
class Created:
    """The job of a create request; ``replayed`` when an earlier request with the same key made it."""

    job: JobView
    replayed: bool


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs of an account to list."""

    status: Status | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it was read for its owner: with its files when it has ended, with its place in line while it waits."""

    job: Job
    assets: Sequence[Asset] = ()
    place: Place | None = None


NO_JOB = "There is no job with this id."
CANCEL_TRIES = 3
#: How many of an account's own jobs before this one are counted.
LONGEST_COUNT = 1000
LARGEST_BATCH = 100
#: Batches under way: while these are with the database, the next one is made up.
BATCHES = 4
#: Whoever waits for longer than so many seconds to get into one is told that we are not available.
PATIENCE_SECONDS = 5.0


class JobService:
    """The API's side of jobs. The worker's side is the submitter, resolver, poller and storer.

    Creates and reads that come at the same time share their round trips: decision 011.
    """

    def __init__(
        self,
        database: Database,
        *,
        acceptance: Acceptance,
        catalog: Catalog,
        recorder: Recorder,
        assets: AssetService,
        events: EventService,
        webhooks: WebhookService,
        forecast: Forecast,
        bell: Bell,
    ) -> None:
        self._database = database
        self._acceptance = acceptance
        self._catalog = catalog
        self._recorder = recorder
        self._assets = assets
        self._events = events
        self._webhooks = webhooks
        self._forecast = forecast
        self._bell = bell
        self._creation = Batcher(
            self._create, largest=LARGEST_BATCH, at_once=BATCHES, separable=left_nothing, patience=PATIENCE_SECONDS
        )
        self._reading = Batcher(self._read, largest=LARGEST_BATCH, at_once=BATCHES, patience=PATIENCE_SECONDS)

    async def create(self, account_id: UUID, new: NewJob, key: str | None) -> Created:
        """Accept an order: when this returns, the job is committed.

        Raises:
            InvalidRequest: the order does not fit the model, or names an unusable URL, deadline or cost.
            IdempotencyMismatch: the key was used with another body.
        """
        body_hash = None if key is None else _hash(new)
        try:
            draft = self._acceptance.draft(account_id, new, key, body_hash)
        except InvalidRequest:
            # What was accepted once stays accepted, whatever the catalogue says today.
            if key is None or (earlier := await self._earlier(account_id, key, body_hash)) is None:
                raise
            return Created(earlier, replayed=True)
        while (job := await self._creation(draft)) is None:
            assert key is not None
            # None: the key was taken a moment ago, and has just been forgotten because its days are over.
            if (earlier := await self._earlier(account_id, key, body_hash)) is not None:
                return Created(earlier, replayed=True)
        return Created(JobView.of(job, []), replayed=False)

    async def _create(self, drafts: Sequence[Draft]) -> Sequence[Job | None]:
        """The jobs of drafts that came at the same time, in one commit; None for one whose key was taken."""
        await checkpoint(Checkpoint.CREATE_ACCEPTED)
        async with self._database.single() as connection:
            jobs = await self._recorder.create(connection, drafts)
        await checkpoint(Checkpoint.CREATE_COMMITTED)
        if jobs:
            self._bell.ring(Lane.SUBMIT)
        return [jobs.get(draft.id) for draft in drafts]

    async def _earlier(self, account_id: UUID, key: str, body_hash: bytes | None) -> JobView | None:
        """The job that a key was used for before; None when it is new.

        Raises:
            IdempotencyMismatch: it was used with another body.
        """
        async with self._database.read() as connection:
            taken = await repository.taken_for(connection, account_id, key)
        if taken is None:
            return None
        earlier_hash, job_id = taken
        if earlier_hash != body_hash:
            message = "was used before, with another body; use a new key for a new job"
            raise IdempotencyMismatch(
                f"This Idempotency-Key {message}.", [FieldError("header.idempotency-key", "reused", message)]
            )
        return await self._view(await self._look(account_id, job_id))

    async def get(self, account_id: UUID, job_id: str) -> JobView:
        """One job.

        Raises:
            NotFound: there is none, or it is not this account's.
        """
        return await self._view(await self._look(account_id, _identifier(job_id)))

    async def wait(self, account_id: UUID, job_id: str, seconds: float) -> JobView:
        """One job, as soon as it has ended, or as it is after so many seconds."""
        identifier = _identifier(job_id)
        seen = await self._look(account_id, identifier)
        if not seen.job.final and seconds > 0:
            with suppress(TimeoutError, Released):
                async with asyncio.timeout(seconds), self._events.watching(identifier):
                    seq = 0
                    while not seen.job.final:
                        seq = await self._events.changed(identifier, seq)
                        seen = await self._look(account_id, identifier)
        return await self._view(seen)

    async def page(self, account_id: UUID, filters: Filters, paging: Paging) -> Page[JobView]:
        """An account's jobs, newest first."""
        async with self._database.read() as connection:
            jobs = await listing.page(
                connection,
                account_id,
                limit=paging.fetch,
                before=paging.after,
                states=states_of(filters.status) if filters.status else (),
                model=self._catalog.canonical(filters.model) if filters.model else None,
                metadata=filters.metadata,
                created_after=filters.created_after,
                created_before=filters.created_before,
            )
            assets = await self._assets_of(connection, jobs)
        return paging.page(jobs, lambda job: job.id, lambda job: JobView.of(job, assets.get(job.id, ())))

    async def cancel(self, account_id: UUID, job_id: str) -> JobView:
        """Ask for a job to be stopped; the answer's `cancel.outcome` says how far that went.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already, otherwise than by being canceled.
        """
        identifier = _identifier(job_id)
        # A worker that moves the job meanwhile makes this miss; the next read sees where it went.
        for _ in range(CANCEL_TRIES):
            with suppress(Overtaken):
                async with self._database.begin() as connection:
                    known = await repository.get(connection, identifier, account_id=account_id)
                    # Under its lock: a request noted while a worker queues the job again would never be seen.
                    job = await repository.lock(connection, identifier) if known else None
                    if job is None:
                        raise NotFound(NO_JOB)
                    await self._cancel(connection, job)
                    await checkpoint(Checkpoint.CANCEL_WRITTEN)
                await checkpoint(Checkpoint.CANCEL_COMMITTED)
                self._bell.ring(Lane.POLL, Lane.DELIVER)
                return await self.get(account_id, job_id)
        raise Conflict("The job is changing just now; ask again.")

    async def _cancel(self, connection: AsyncConnection, job: Job) -> None:
        if job.state is State.CANCELED or (job.cancel_requested_at is not None and not job.final):
            return
        if job.final:
            raise Conflict(f"The job has ended already: it {job.state}.")
        if job.state is State.QUEUED:
            await self._recorder.move(
                connection, job.id, State.CANCELED, from_=(State.QUEUED,), fence=None, cancel_requested_at=NOW
            )
            return
        rendered = job.state is State.STORING
        job = await self._recorder.amend(
            connection,
            job.id,
            "job.cancel_requested",
            cancel_requested_at=NOW,
            cancel_outcome=CancelOutcome.NOT_CANCELLABLE.value if rendered else None,
        )
        await schedule.look_now(connection, job)

    async def submissions(self, account_id: UUID, job_id: str) -> list[Submission]:
        """A job's ledger: every purchase tried or made, oldest first."""
        seen = await self._look(account_id, _identifier(job_id))
        async with self._database.read() as connection:
            return await submissions.of_job(connection, account_id, seen.job.id)

    async def deliveries(self, account_id: UUID, job_id: str) -> list[Delivery]:
        """The webhooks sent for a job, or still owed."""
        seen = await self._look(account_id, _identifier(job_id))
        return await self._webhooks.deliveries(account_id, seen.job.id)

    async def identify(self, account_id: UUID, job_id: str) -> tuple[UUID, bool]:
        """The inner id of an account's job, and whether it has ended."""
        seen = await self._look(account_id, _identifier(job_id))
        return seen.job.id, seen.job.final

    async def _look(self, account_id: UUID, job_id: UUID) -> Seen:
        seen = await self._reading((account_id, job_id))
        if seen is None:
            raise NotFound(NO_JOB)
        return seen

    async def _read(self, asked: Sequence[tuple[UUID, UUID]]) -> Sequence[Seen | None]:
        """The jobs that callers asked for at the same time, with what belongs into their views."""
        async with self._database.read() as connection:
            jobs = await repository.owned(connection, asked)
            queued = [job.id for job in jobs.values() if job.state is State.QUEUED]
            places = await schedule.places(connection, queued, LONGEST_COUNT) if queued else {}
            assets = await self._assets_of(connection, jobs.values())
        return [
            Seen(job, assets.get(job.id, ()), places.get(job.id)) if (job := jobs.get(pair)) else None for pair in asked
        ]

    async def _view(self, seen: Seen) -> JobView:
        return JobView.of(seen.job, seen.assets, await self._forecast.of(seen.job, seen.place))

    async def _assets_of(self, connection: AsyncConnection, jobs: Iterable[Job]) -> Mapping[UUID, Sequence[Asset]]:
        ended = [job.id for job in jobs if job.final]
        return await self._assets.of_jobs(connection, ended) if ended else {}


def _hash(new: NewJob) -> bytes:
    return hashlib.sha256(json.dumps(new.model_dump(mode="json", exclude_unset=True), sort_keys=True).encode()).digest()


def _identifier(job_id: str) -> UUID:
    identifier = decode(Prefix.JOB, job_id)
    if identifier is None:
        raise NotFound(NO_JOB)
    return identifier
