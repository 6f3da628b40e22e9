"""The API's operations on jobs."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.records import StoredAsset
from app.assets.service import AssetService
from app.batching import Batcher
from app.claims import ClaimLost
from app.errors import Conflict, FieldError, IdempotencyMismatch, InvalidRequest, NotFound, RateLimited
from app.events.repository import Event
from app.events.service import EventService, Released
from app.events.types import EventType
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, decode
from app.infra.db import NOW, Database, left_nothing
from app.jobs.api.acceptance import Acceptance
from app.jobs.api.again import JobChanges, ordered_again
from app.jobs.api.filters import Filters
from app.jobs.api.forecast import Forecast
from app.jobs.api.inputs import Inputs
from app.jobs.api.requests import JobRequest
from app.jobs.api.schemas import JobView
from app.jobs.db import listing, repository, schedule, submissions
from app.jobs.db.schedule import QueuePosition
from app.jobs.payloads import JobEvent, JobEventData
from app.jobs.records import NO_ESTIMATE, AcceptedRequest, Estimate, Job, Submission
from app.jobs.states import UNSUBMITTED, State, states_of
from app.jobs.transitions import Changes, Transitions
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
class JobSnapshot:
    """A job as read for its owner: with its files once it has ended, with its queue position while it waits."""

    job: Job
    assets: Sequence[StoredAsset] = ()
    position: QueuePosition | None = None


NO_JOB = "There is no job with this id."
CANCEL_TRIES = 3
#: Seconds until an account with too many live jobs may try again.
RETRY_AFTER = 10.0
#: Limit for counting an account's jobs ahead of this one.
LONGEST_COUNT = 1000
LARGEST_BATCH = 100
#: Batches in progress at once; meanwhile the next one is collected.
BATCHES = 4
#: A request that waits longer for its batch gets a 503.
PATIENCE_SECONDS = 5.0


class JobService:
    """The API's side of jobs. The worker's side is the submitter, resolver, poller and storer.

    Concurrent creates and reads share their round trips: docs/decisions/011.
    """

    def __init__(
        self,
        database: Database,
        *,
        acceptance: Acceptance,
        inputs: Inputs,
        catalog: Catalog,
        transitions: Transitions,
        assets: AssetService,
        events: EventService,
        webhooks: WebhookService,
        forecast: Forecast,
        max_live: int | None,
    ) -> None:
        self._database = database
        self._acceptance = acceptance
        self._inputs = inputs
        self._catalog = catalog
        self._transitions = transitions
        self._assets = assets
        self._events = events
        self._webhooks = webhooks
        self._forecast = forecast
        self._max_live = max_live
        self._creation = Batcher(
            self._create, largest=LARGEST_BATCH, at_once=BATCHES, separable=left_nothing, patience=PATIENCE_SECONDS
        )
        self._reading = Batcher(self._read, largest=LARGEST_BATCH, at_once=BATCHES, patience=PATIENCE_SECONDS)
        self._replaying = Batcher(self._replay, largest=LARGEST_BATCH, at_once=BATCHES, patience=PATIENCE_SECONDS)

    async def again(self, account_id: UUID, job_id: str, changes: JobChanges, key: str | None) -> Created:
        """Create a job like an earlier one, with changes; as :meth:`create`.

        Raises:
            NotFound: there is no such job.
        """
        parent = (await self._snapshot(account_id, _identifier(job_id))).job
        return await self.create(account_id, ordered_again(parent, changes), key, parent_id=parent.id)

    async def create(
        self, account_id: UUID, request: JobRequest, key: str | None, *, parent_id: UUID | None = None
    ) -> Created:
        """Accept a request: when this returns, the job is committed. ``parent_id`` is the job that it varies.

        Raises:
            InvalidRequest: the request does not fit the model, or names an unusable URL, deadline or cost.
            IdempotencyMismatch: the key was used with another body.
            RateLimited: the account has as many live jobs as it may.
        """
        body_hash = None if key is None else _hash(request, parent_id)
        try:
            inputs = await self._inputs.resolve(account_id, request) if request.inputs else ()
            accepted = self._acceptance.accept(
                account_id, request, inputs, parent_id=parent_id, key=key, body_hash=body_hash
            )
        except InvalidRequest:
            # A request that was accepted once stays accepted, even if the catalogue has changed.
            if key is None or (earlier := await self._earlier(account_id, key, body_hash)) is None:
                raise
            return Created(earlier, replayed=True)
        while (job := await self._creation(accepted)) is None or isinstance(job, RateLimited):
            # None without an earlier job: the key was taken a moment ago, but has expired and was deleted meanwhile.
            if key is not None and (earlier := await self._earlier(account_id, key, body_hash)) is not None:
                return Created(earlier, replayed=True)
            if job is not None:
                raise job
        return Created(JobView.of(job, []), replayed=False)

    async def _create(self, accepted: Sequence[AcceptedRequest]) -> Sequence[Job | RateLimited | None]:
        """The jobs of requests that arrived at the same time, in one commit; None for one whose key was taken."""
        admitted = await self._admitted(accepted)
        jobs = await self._transitions.create(admitted) if admitted else {}
        refused = {one.id for one in accepted} - {one.id for one in admitted}
        return [_too_many(self._max_live) if one.id in refused else jobs.get(one.id) for one in accepted]

    async def _admitted(self, accepted: Sequence[AcceptedRequest]) -> Sequence[AcceptedRequest]:
        """Those requests whose account may have another live job. Concurrent batches may exceed the limit a little."""
        if self._max_live is None:
            return accepted
        async with self._database.read() as conn:
            live = Counter(await schedule.live_jobs(conn, {one.account_id for one in accepted}, self._max_live))
        admitted = []
        for one in accepted:
            if live[one.account_id] < self._max_live:
                live[one.account_id] += 1
                admitted.append(one)
        return admitted

    async def _earlier(self, account_id: UUID, key: str, body_hash: bytes | None) -> JobView | None:
        """The job that a key was used for before; None if it is new.

        Raises:
            IdempotencyMismatch: it was used with another body.
        """
        earlier = await self._replaying((account_id, key))
        if earlier is None:
            return None
        earlier_hash, snapshot = earlier
        if earlier_hash != body_hash:
            message = "was used before, with another body; use a new key for a new job"
            raise IdempotencyMismatch(
                f"This Idempotency-Key {message}.", [FieldError("header.Idempotency-Key", "reused", message)]
            )
        return await self._view(snapshot)

    async def _replay(self, asked: Sequence[tuple[UUID, str]]) -> Sequence[tuple[bytes, JobSnapshot] | None]:
        """The body hashes and the jobs of concurrent replays, each of a pair of account and key."""
        async with self._database.read() as conn:
            taken = await repository.taken(conn, asked)
            pairs = [(account_id, job_id) for (account_id, _), (_, job_id) in taken.items()]
            found = dict(zip(taken, await self._snapshots(conn, pairs), strict=True)) if pairs else {}
        return [(taken[pair][0], snapshot) if (snapshot := found.get(pair)) is not None else None for pair in asked]

    async def get(self, account_id: UUID, job_id: str) -> JobView:
        """One job.

        Raises:
            NotFound: there is none, or it is not this account's.
        """
        return await self._view(await self._snapshot(account_id, _identifier(job_id)))

    async def wait(self, account_id: UUID, job_id: str, seconds: float) -> JobView:
        """One job, once it has ended or after ``seconds``."""
        identifier = _identifier(job_id)
        snapshot = await self._snapshot(account_id, identifier)
        if not snapshot.job.final and seconds > 0:
            with suppress(TimeoutError, Released):
                async with asyncio.timeout(seconds), self._events.watching(identifier):
                    seq = 0
                    while not snapshot.job.final:
                        seq = await self._events.changed(identifier, seq)
                        snapshot = await self._snapshot(account_id, identifier)
        return await self._view(snapshot)

    async def page(self, account_id: UUID, filters: Filters, paging: Paging) -> Page[JobView]:
        """An account's jobs, newest first."""
        async with self._database.read() as conn:
            jobs = await listing.page(
                conn,
                account_id,
                limit=paging.fetch,
                before=paging.after,
                states={state for status in filters.statuses for state in states_of(status)},
                models={self._catalog.canonical(model) for model in filters.models},
                metadata=filters.metadata,
                created_after=filters.created_after,
                created_before=filters.created_before,
                parent_id=filters.parent_id,
            )
            assets = await self._assets_of(conn, jobs)
        return paging.page(jobs, lambda job: job.id, lambda job: self._shown(job, assets.get(job.id, ())))

    async def cancel(self, account_id: UUID, job_id: str) -> JobView:
        """Request the cancellation of a job; `cancel.outcome` of the response is the result so far.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already, otherwise than by being canceled.
        """
        identifier = _identifier(job_id)
        # A worker may move the job meanwhile: read it again.
        for _ in range(CANCEL_TRIES):
            with suppress(ClaimLost):
                async with self._transitions.begin() as changes:
                    known = await repository.get(changes.conn, identifier, account_id=account_id)
                    # Under its lock: a cancel noted while a worker requeues the job would be missed.
                    job = await repository.lock(changes.conn, identifier) if known else None
                    if job is None:
                        raise NotFound(NO_JOB)
                    await self._cancel(changes, job)
                    await failpoint(Failpoint.CANCEL_WRITTEN)
                await failpoint(Failpoint.CANCEL_COMMITTED)
                return await self.get(account_id, job_id)
        raise Conflict("The job is changing at this moment; retry.")

    async def _cancel(self, changes: Changes, job: Job) -> None:
        if job.state is State.CANCELED or (job.cancel_requested_at is not None and not job.final):
            return
        if job.final:
            raise Conflict(f"The job has ended already: it {job.state}.")
        if job.state in UNSUBMITTED:
            await changes.move(job.id, State.CANCELED, from_=(job.state,), fence=None, cancel_requested_at=NOW)
            return
        storing = job.state is State.STORING
        job = await changes.amend(
            job.id,
            EventType.CANCEL_REQUESTED,
            cancel_requested_at=NOW,
            cancel_outcome=CancelOutcome.NOT_CANCELLABLE.value if storing else None,
        )
        await changes.make_due(job)

    async def submissions(self, account_id: UUID, job_id: str) -> list[Submission]:
        """A job's ledger: all its submissions, oldest first."""
        snapshot = await self._snapshot(account_id, _identifier(job_id))
        async with self._database.read() as conn:
            return await submissions.of_job(conn, account_id, snapshot.job.id)

    async def deliveries(self, account_id: UUID, job_id: str) -> list[Delivery]:
        """The webhooks of a job: sent, or still to be sent."""
        snapshot = await self._snapshot(account_id, _identifier(job_id))
        return await self._webhooks.deliveries(account_id, snapshot.job.id)

    async def identify(self, account_id: UUID, job_id: str) -> tuple[UUID, bool]:
        """The internal id of an account's job, and whether it has ended."""
        snapshot = await self._snapshot(account_id, _identifier(job_id))
        return snapshot.job.id, snapshot.job.final

    async def event(self, job_id: UUID, logged: Event) -> JobEvent:
        """An event of a job's log as clients see it, with the URLs of the files that it names."""
        files: Sequence[StoredAsset] = ()
        if logged.data["assets"]:
            async with self._database.read() as conn:
                files = (await self._assets.of_jobs(conn, [job_id])).get(job_id, ())
        data = JobEventData.of_logged(logged.data, [self._assets.show(file) for file in files])
        return JobEvent(type=EventType(logged.type), timestamp=logged.created_at, data=data)

    async def _snapshot(self, account_id: UUID, job_id: UUID) -> JobSnapshot:
        snapshot = await self._reading((account_id, job_id))
        if snapshot is None:
            raise NotFound(NO_JOB)
        return snapshot

    async def _read(self, pairs: Sequence[tuple[UUID, UUID]]) -> Sequence[JobSnapshot | None]:
        """The snapshots of concurrent reads, each of a pair of account and job."""
        async with self._database.read() as conn:
            return await self._snapshots(conn, pairs)

    async def _snapshots(
        self, conn: AsyncConnection, pairs: Sequence[tuple[UUID, UUID]]
    ) -> Sequence[JobSnapshot | None]:
        jobs = await repository.owned(conn, pairs)
        queued = [job.id for job in jobs.values() if job.state is State.QUEUED]
        positions = await schedule.positions(conn, queued, LONGEST_COUNT) if queued else {}
        assets = await self._assets_of(conn, jobs.values())
        return [
            JobSnapshot(job, assets.get(job.id, ()), positions.get(job.id)) if (job := jobs.get(pair)) else None
            for pair in pairs
        ]

    async def _view(self, snapshot: JobSnapshot) -> JobView:
        estimate = await self._forecast.of(snapshot.job, snapshot.position)
        return self._shown(snapshot.job, snapshot.assets, estimate)

    def _shown(self, job: Job, assets: Sequence[StoredAsset], estimate: Estimate = NO_ESTIMATE) -> JobView:
        return JobView.of(job, [self._assets.show(asset) for asset in assets], estimate)

    async def _assets_of(self, conn: AsyncConnection, jobs: Iterable[Job]) -> Mapping[UUID, Sequence[StoredAsset]]:
        ended = [job.id for job in jobs if job.final]
        return await self._assets.of_jobs(conn, ended) if ended else {}


def _too_many(limit: int | None) -> RateLimited:
    message = f"This account has {limit} jobs that have not ended; create another one when one of them has."
    return RateLimited(message, retry_after=RETRY_AFTER)


def _hash(request: JobRequest, parent_id: UUID | None) -> bytes:
    parent = "" if parent_id is None else str(parent_id)
    body = json.dumps(request.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256((body + parent).encode()).digest()


def _identifier(job_id: str) -> UUID:
    identifier = decode(Prefix.JOB, job_id)
    if identifier is None:
        raise NotFound(NO_JOB)
    return identifier
