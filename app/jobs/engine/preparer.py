"""The preparer: fetches, checks and converts the inputs of a job before anything is submitted.

Its steps are recorded one by one, so that a worker that takes over goes on where the last one stopped: each input that
is a URL becomes a file of the account; then all are checked against every model that may make the video, and made what
is sent to it. A fault of an input ends the job; a fault of the gateway or of the network is tried again.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from app.assets.records import Kind
from app.assets.service import AssetService
from app.backoff import exponential, jittered
from app.counting import counted
from app.errors import FilmgateError, Unavailable
from app.failpoints import Failpoint, failpoint
from app.files.errors import NotFetched
from app.files.records import StoredFile
from app.files.service import FileService
from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import errors
from app.jobs.db import file_uses, repository, schedule
from app.jobs.engine.context import EngineContext, ScheduledStep
from app.jobs.engine.inputs import SentInputs
from app.jobs.records import Claim, Job, changed_specs, input_file
from app.jobs.states import State
from app.media.errors import StorageError
from app.media.info import Conversion
from app.providers.fitting_inputs import fit_inputs
from app.providers.inputs import FrameUse, InputFile, JobInput
from app.providers.job_spec import JobSpec

#: How often a URL is fetched that may deliver the next time.
FETCH_TRIES = 3
FIRST_RETRY_SECONDS = 1
LONGEST_RETRY_SECONDS = 60
#: The slow URLs of one account must not keep all others waiting: it has one share of a worker's slots.
SHARES = 2
#: Until a job is looked at again whose account had its share.
BUSY_SECONDS = 3
FETCH_FAILED = "An input could not be fetched; trying again."
NOT_STORED = "An input could not be prepared just now; trying again."

log = structlog.get_logger()


class _Unusable(Exception):
    """An input is at fault; the text names it. ``passing``: it may be usable the next time."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class _Later(Exception):
    """Another try may succeed. ``specs`` is what has come of this one."""

    def __init__(self, notice: str, specs: Sequence[JobSpec], tries: int = 1) -> None:
        super().__init__(notice)
        self.notice = notice
        self.specs = specs
        self.tries = tries


class Preparer(ScheduledStep):
    """Advances jobs in the `prepare` lane."""

    lane = Lane.PREPARE

    def __init__(
        self, context: EngineContext, files: FileService, assets: AssetService, sent: SentInputs, *, limit: int
    ) -> None:
        self._context = context
        self._files = files
        self._assets = assets
        self._sent = sent
        self.limit = limit
        self._busy: Counter[UUID] = Counter()  # by account

    async def advance(self, claim: Claim) -> None:
        """Prepare the inputs of one job, unless others of its account take their share of this worker already."""
        await failpoint(Failpoint.PREPARE_CLAIMED)
        async with self._context.database.read() as conn:
            job = await repository.get(conn, claim.job_id)
            now = await repository.now(conn)
        if job is None or job.state is not State.PREPARING:
            return
        if self._busy[job.account_id] >= max(1, self.limit // SHARES):
            async with self._context.database.begin() as conn:
                await schedule.defer(conn, [(claim, jittered(BUSY_SECONDS))])
            return
        with counted(self._busy, job.account_id):
            await self._prepare(claim, job, now)

    async def _prepare(self, claim: Claim, job: Job, now: datetime) -> None:
        deadline = asyncio.timeout(max(0, (job.deadline_at - now).total_seconds()))
        try:
            async with deadline, self._context.holding([claim]):
                specs = await self._prepared(job)
        except TimeoutError:
            if not deadline.expired():
                raise  # of the database, say: the job is claimed again when the lease ends
            await self._fail(claim, errors.DEADLINE)
        except _Unusable as error:
            await self._fail(claim, errors.input_unusable(str(error), retryable=error.passing))
        except _Later as error:
            await self._retry(claim, job, error, now)
        else:
            async with self._context.transitions.begin() as changes:
                await changes.move(
                    job.id, State.QUEUED, from_=(State.PREPARING,), fence=claim.fence, **changed_specs(specs)
                )
                await file_uses.add(changes.conn, job.id, _files_of(specs))
                await failpoint(Failpoint.PREPARE_RECORDED)

    async def _prepared(self, job: Job) -> Sequence[JobSpec]:
        """The job's specs with all inputs as they are sent.

        Raises:
            _Unusable, _Later
        """
        specs: Sequence[JobSpec] = job.specs
        for number, one in enumerate(job.spec.inputs):
            if one.file is None:
                specs = await self._fetched(job, specs, number)
        try:
            made: dict[tuple[UUID, Conversion], InputFile] = {}  # models often want the same
            found = [await self._converted(job, spec, made) for spec in specs]
        except (Unavailable, StorageError) as error:
            raise _Later(NOT_STORED, specs) from error
        await failpoint(Failpoint.PREPARE_CONVERTED)
        return found

    async def _fetched(self, job: Job, specs: Sequence[JobSpec], number: int) -> Sequence[JobSpec]:
        """Make the source of one input a file of the account, and record it."""
        one = specs[0].inputs[number]
        field = f"inputs[{number}].{'url' if one.job_id is None else 'job_id'}"
        try:
            file = await self._given(job, one, field)
        except NotFetched as error:
            tries = one.tries + 1
            if not error.passing or tries >= FETCH_TRIES:
                raise _Unusable(error.message, passing=error.passing) from error
            raise _Later(FETCH_FAILED, _with_input(specs, number, tries=tries), tries) from error
        except (Unavailable, StorageError) as error:
            raise _Later(NOT_STORED, specs) from error
        except FilmgateError as error:
            raise _Unusable(f"`{field}`: {error.message}") from error
        await failpoint(Failpoint.PREPARE_FETCHED)
        specs = _with_input(specs, number, file=input_file(file))
        async with self._context.transitions.begin() as changes:
            await changes.record_inputs(job.id, specs, _files_of(specs))
        return specs

    async def _given(self, job: Job, one: JobInput, field: str) -> StoredFile:
        if one.job_id is None:
            assert one.url is not None
            return (await self._files.fetch(job.account_id, one.url, name=None, field=field)).file
        async with self._context.database.read() as conn:
            assets = (await self._assets.of_jobs(conn, [one.job_id])).get(one.job_id, [])
        video = next((asset for asset in assets if asset.kind is Kind.VIDEO and asset.deleted_at is None), None)
        if video is None or video.account_id != job.account_id:
            raise _Unusable(f"`{field}`: the video of the job is gone")
        last = one.use is FrameUse.LAST_FRAME
        return await self._files.still(job.account_id, video.object_key, video.size_bytes, last=last, field=field)

    async def _converted(self, job: Job, spec: JobSpec, made: dict[tuple[UUID, Conversion], InputFile]) -> JobSpec:
        """A spec with what is sent to its model. ``made`` are the conversions of this job so far."""
        model = self._context.registry.catalog.get(spec.model)
        if model is None:
            raise _Unusable(f"{spec.model} is no model of this gateway any more")
        fitted = fit_inputs(spec.model, model.facts, (spec.width, spec.height), spec.inputs)
        if fitted.problems:
            raise _Unusable("; ".join(f"`{one.field}` {one.message}" for one in fitted.problems))
        connections = self._context.registry.connections_of(spec.model)
        most = self._sent.most_bytes(self._context.registry.provider(name).traits for name in connections)
        inputs = []
        for number, (one, conversion) in enumerate(zip(spec.inputs, fitted.conversions, strict=True)):
            assert one.file is not None
            assert conversion is not None
            field = f"inputs[{number}]"
            wanted = one.file.id, _limited(conversion, one, most)
            if wanted not in made:
                made[wanted] = await self._convert(job, *wanted, field)
            sent = made[wanted]
            if connections and most is not None and sent.size_bytes > most:
                raise _Unusable(f"`{field}` has {sent.size_bytes} bytes; at most {most} can be sent to {spec.model}")
            inputs.append(replace(one, sent=sent))
        known = {one["field"] for one in spec.adjustments}
        news = [one for one in fitted.adjustments if one["field"] not in known]
        return replace(spec, inputs=tuple(inputs), adjustments=(*spec.adjustments, *news))

    async def _convert(self, job: Job, file_id: UUID, conversion: Conversion, field: str) -> InputFile:
        file = await self._files.kept(job.account_id, file_id)
        if file is None:
            raise _Unusable(f"`{field}`: the file is gone")
        try:
            return input_file(await self._files.converted(file, conversion, field=field))
        except Unavailable:
            raise
        except FilmgateError as error:
            raise _Unusable(f"`{field}`: {error.message}") from error

    async def _fail(self, claim: Claim, error: Mapping[str, Any]) -> None:
        async with self._context.transitions.begin() as changes:
            await changes.move(claim.job_id, State.FAILED, from_=(State.PREPARING,), fence=claim.fence, error=error)
            await failpoint(Failpoint.PREPARE_RECORDED)

    async def _retry(self, claim: Claim, job: Job, error: _Later, now: datetime) -> None:
        log.warning("inputs not prepared", job=encode(Prefix.JOB, job.id), error=repr(error.__cause__))
        pause = exponential(error.tries, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        left = (job.deadline_at - now).total_seconds()
        async with self._context.transitions.begin() as changes:
            await changes.record_inputs(job.id, error.specs, ())
            await changes.notice(job.id, error.notice)
            await schedule.defer(changes.conn, [(claim, min(pause, left))], all_held=True)


def _with_input(specs: Sequence[JobSpec], number: int, **changed: Any) -> tuple[JobSpec, ...]:
    """The specs of all models with one input changed."""

    def of(spec: JobSpec) -> JobSpec:
        inputs = list(spec.inputs)
        inputs[number] = replace(inputs[number], **changed)
        return replace(spec, inputs=tuple(inputs))

    return tuple(of(spec) for spec in specs)


def _files_of(specs: Sequence[JobSpec]) -> set[UUID]:
    return {file.id for spec in specs for one in spec.inputs for file in (one.file, one.sent) if file is not None}


def _limited(conversion: Conversion, one: JobInput, most: int | None) -> Conversion:
    """Where it may be adjusted: no larger than can be sent."""
    if not one.adjust or most is None:
        return conversion
    return replace(conversion, max_bytes=min(conversion.max_bytes, most))
