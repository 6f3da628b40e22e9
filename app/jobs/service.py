"""What callers can do with jobs."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.service import AssetService
from app.checkpoints import Checkpoint, checkpoint
from app.db import NOW, Database, interval
from app.errors import Conflict, FieldError, IdempotencyMismatch, InvalidRequest, NotFound
from app.events.service import EventService, Released
from app.ids import Prefix, decode, new_id
from app.jobs import ledger, repository, schedule
from app.jobs.forecast import Forecast
from app.jobs.orders import NewJob
from app.jobs.recorder import Recorder
from app.jobs.records import Choice, Job, Ordered, Submission
from app.jobs.schemas import PRIORITIES, JobView, money
from app.jobs.states import State, Status, states_of
from app.lanes import Overtaken
from app.pagination import Page, Paging
from app.providers.base import CancelOutcome
from app.providers.catalog import Model
from app.providers.fitting import Fitted
from app.providers.registry import Registry
from app.queue import Bell, Lane
from app.settings import JobSettings
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


NO_JOB = "There is no job with this id."
CANCEL_TRIES = 3


class JobService:
    """The API's side of jobs. The worker's side is the submitter, resolver, poller and storer."""

    def __init__(
        self,
        database: Database,
        *,
        registry: Registry,
        recorder: Recorder,
        assets: AssetService,
        events: EventService,
        webhooks: WebhookService,
        forecast: Forecast,
        bell: Bell,
        settings: JobSettings,
    ) -> None:
        self._database = database
        self._registry = registry
        self._catalog = registry.catalog
        self._recorder = recorder
        self._assets = assets
        self._events = events
        self._webhooks = webhooks
        self._forecast = forecast
        self._bell = bell
        self._settings = settings

    async def create(self, account_id: UUID, new: NewJob, idempotency_key: str | None) -> Created:
        """Accept an order: when this returns, the job is committed.

        Raises:
            InvalidRequest: the order does not fit the model, or names an unusable URL, deadline or cost.
            IdempotencyMismatch: the key was used with another body.
        """
        body_hash = hashlib.sha256(
            json.dumps(new.model_dump(mode="json", exclude_unset=True), sort_keys=True).encode()
        ).digest()
        job_id = new_id()
        async with self._database.begin() as connection:
            if idempotency_key is not None:
                taken = await repository.reserve_key(connection, account_id, idempotency_key, body_hash, job_id)
                if taken is not None:
                    earlier = await self._earlier(connection, account_id, body_hash, *taken)
                    return Created(earlier, replayed=True)
            values, ordered = self._accept(new)
            job = await repository.create(connection, job_id, {"account_id": account_id, **values}, ordered)
            await self._recorder.created(connection, job)
            await checkpoint(Checkpoint.CREATE_WRITTEN)
        await checkpoint(Checkpoint.CREATE_COMMITTED)
        self._bell.ring(Lane.SUBMIT)
        return Created(JobView.of(job, []), replayed=False)

    async def _earlier(
        self, connection: AsyncConnection, account_id: UUID, body_hash: bytes, earlier_hash: bytes, job_id: UUID
    ) -> JobView:
        if earlier_hash != body_hash:
            message = "was used before, with another body; use a new key for a new job"
            raise IdempotencyMismatch(
                f"This Idempotency-Key {message}.", [FieldError("header.idempotency-key", "reused", message)]
            )
        job = await repository.get(connection, job_id, account_id=account_id)
        assert job is not None, "a key is kept with its job"
        return (await self._views(connection, [job]))[0]

    def _accept(self, new: NewJob) -> tuple[dict[str, Any], Ordered]:
        """Check an order against the catalogue and the settings; what to store."""
        chosen = self._choose(new, self._catalog.resolve(new.model), new.provider_options)
        if new.webhook_url is not None:
            self._webhooks.check_url(new.webhook_url)
        fallbacks = self._fallbacks(new, chosen)
        served = any(self._registry.connections_of(choice.model) for choice in (chosen, *fallbacks))
        values = {
            "model": chosen.model,
            "notice": None if served else f"No configured connection serves {chosen.model} now.",
            "adjustments": chosen.adjustments,
            "fallbacks": [choice.stored() for choice in fallbacks],
            "fallback_on_refusal": new.fallback_on_refusal,
            "max_cost": new.max_cost,
            "priority": next(number for number, name in PRIORITIES.items() if name == new.priority),
            "metadata": new.metadata,
            "webhook_url": new.webhook_url,
            "estimated_cost": chosen.estimated_cost,
            "deadline_at": NOW + interval(self._deadline(new.deadline_seconds)),
        }
        return values, chosen.ordered

    def _choose(self, new: NewJob, model: Model, options: Mapping[str, Any]) -> Choice:
        fitted = model.check(
            prompt=new.prompt,
            seconds=new.seconds,
            size=new.size,
            aspect_ratio=new.aspect_ratio,
            resolution=new.resolution,
            seed=new.seed,
            negative_prompt=new.negative_prompt,
            audio=new.audio,
            options=options,
            mode=new.mode,
        )
        estimated = model.price(fitted.seconds, fitted.size)
        _check_cost(new.max_cost, estimated, model)
        adjustments = [asdict(adjustment) for adjustment in fitted.adjustments]
        return Choice(model.name, _ordered(new.prompt, fitted), estimated, adjustments)

    def _fallbacks(self, new: NewJob, chosen: Choice) -> list[Choice]:
        choices: list[Choice] = []
        for place, name in enumerate(new.fallbacks):
            field = f"fallbacks[{place}]"
            try:
                model = self._catalog.resolve(name)
                choices.append(self._choose(new, model, {}))
            except InvalidRequest as error:
                faults = [FieldError(_inside(field, fault.field), fault.code, fault.message) for fault in error.fields]
                raise type(error)(f"`{field}`, {name}: {error.message}", faults) from None
            if model.name in [chosen.model, *(choice.model for choice in choices[:-1])]:
                message = f"is {model.name} once more; name each model once"
                raise InvalidRequest(f"`{field}` {message}.", [FieldError(field, "repeated", message)])
        return choices

    def _deadline(self, asked: int | None) -> float:
        longest = self._settings.max_deadline
        if asked is not None and asked > longest:
            message = f"must be {longest:.0f} or less"
            raise InvalidRequest(
                f"`deadline_seconds` {message}.", [FieldError("deadline_seconds", "too_long", message)]
            )
        return asked if asked is not None else self._settings.default_deadline

    async def get(self, account_id: UUID, job_id: str) -> JobView:
        """One job.

        Raises:
            NotFound: there is none, or it is not this account's.
        """
        return await self._view(await self._job(account_id, job_id))

    async def wait(self, account_id: UUID, job_id: str, seconds: float) -> JobView:
        """One job, as soon as it has ended, or as it is after so many seconds."""
        job = await self._job(account_id, job_id)
        if not job.final and seconds > 0:
            with suppress(TimeoutError, Released):
                async with asyncio.timeout(seconds), self._events.watching(job.id):
                    seq = 0
                    while not job.final:
                        seq = await self._events.changed(job.id, seq)
                        job = await self._job(account_id, job_id)
        return await self._view(job)

    async def page(self, account_id: UUID, filters: Filters, paging: Paging) -> Page[JobView]:
        """An account's jobs, newest first."""
        async with self._database.read() as connection:
            jobs = await repository.page(
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
            views = {job.id: view for job, view in zip(jobs, await self._views(connection, jobs), strict=True)}
        return paging.page(jobs, lambda job: job.id, lambda job: views[job.id])

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
                    job = await self._cancel(connection, job)
                    await checkpoint(Checkpoint.CANCEL_WRITTEN)
                await checkpoint(Checkpoint.CANCEL_COMMITTED)
                self._bell.ring(Lane.POLL, Lane.DELIVER)
                return await self._view(job)
        raise Conflict("The job is changing just now; ask again.")

    async def _cancel(self, connection: AsyncConnection, job: Job) -> Job:
        if job.state is State.CANCELED or (job.cancel_requested_at is not None and not job.final):
            return job
        if job.final:
            raise Conflict(f"The job has ended already: it {job.state}.")
        if job.state is State.QUEUED:
            return await self._recorder.move(
                connection,
                job.id,
                State.CANCELED,
                from_=(State.QUEUED,),
                fence=None,
                cancel_requested_at=NOW,
            )
        rendered = job.state is State.STORING
        job = await self._recorder.amend(
            connection,
            job.id,
            "job.cancel_requested",
            cancel_requested_at=NOW,
            cancel_outcome=CancelOutcome.NOT_CANCELLABLE.value if rendered else None,
        )
        await schedule.look_now(connection, job)
        return job

    async def submissions(self, account_id: UUID, job_id: str) -> list[Submission]:
        """A job's ledger: every purchase tried or made, oldest first."""
        job = await self._job(account_id, job_id)
        async with self._database.read() as connection:
            return await ledger.of_job(connection, account_id, job.id)

    async def deliveries(self, account_id: UUID, job_id: str) -> list[Delivery]:
        """The webhooks sent for a job, or still owed."""
        job = await self._job(account_id, job_id)
        return await self._webhooks.deliveries(account_id, job.id)

    async def identify(self, account_id: UUID, job_id: str) -> tuple[UUID, bool]:
        """The inner id of an account's job, and whether it has ended."""
        job = await self._job(account_id, job_id)
        return job.id, job.final

    async def _job(self, account_id: UUID, job_id: str) -> Job:
        async with self._database.read() as connection:
            job = await repository.get(connection, _identifier(job_id), account_id=account_id)
        if job is None:
            raise NotFound(NO_JOB)
        return job

    async def _view(self, job: Job) -> JobView:
        if not job.final:
            return JobView.of(job, [], await self._forecast.of(job))
        async with self._database.read() as connection:
            return (await self._views(connection, [job]))[0]

    async def _views(self, connection: AsyncConnection, jobs: list[Job]) -> list[JobView]:
        ended = [job.id for job in jobs if job.final]
        assets = await self._assets.of_jobs(connection, ended) if ended else {}
        return [JobView.of(job, assets.get(job.id, [])) for job in jobs]


def _inside(place: str, field: str) -> str:
    """The field of an order as it applies to one of its fallbacks."""
    return place if field == "model" else f"{place}.{field}"


def _check_cost(limit: Decimal | None, estimated: Decimal | None, model: Model) -> None:
    if limit is None:
        return
    if estimated is None:
        message = f"cannot be kept: the price of {model.name} is not known"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "price_unknown", message)])
    if estimated > limit:
        message = f"is less than the price of this film, {money(estimated)} USD"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "too_expensive", message)])


def _ordered(prompt: str, fitted: Fitted) -> Ordered:
    return Ordered(
        prompt=prompt,
        seconds=fitted.seconds,
        width=fitted.width,
        height=fitted.height,
        seed=fitted.seed,
        negative_prompt=fitted.negative_prompt,
        audio=fitted.audio,
        options=fitted.options,
    )


def _identifier(job_id: str) -> UUID:
    identifier = decode(Prefix.JOB, job_id)
    if identifier is None:
        raise NotFound(NO_JOB)
    return identifier
