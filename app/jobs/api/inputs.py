"""Resolves the inputs of requests: which file each one is, as far as that is known yet. URLs are fetched later."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from uuid import UUID

from app.batching import Batcher
from app.errors import FieldError, InvalidRequest
from app.files.service import FileService
from app.ids import Prefix, decode
from app.infra.db import Database
from app.infra.egress import InvalidUrl
from app.jobs.api.requests import InputRequest, JobRequest
from app.jobs.db import repository
from app.jobs.records import input_file
from app.jobs.states import State
from app.providers.inputs import FrameUse, InputFile, InputRole, JobInput

LARGEST_BATCH = 100
BATCHES = 4
#: A request that waits longer for its batch gets a 503.
PATIENCE_SECONDS = 5.0
NO_VIDEO = "there is no such job that has succeeded"
NO_FILE = "there is no such file; upload it with POST /v1/files"

Files = Mapping[UUID, InputFile]


class Inputs:
    """Resolves the inputs of requests of any account. Concurrent look-ups share round trips: docs/decisions/011."""

    def __init__(self, database: Database, files: FileService) -> None:
        self._database = database
        self._files = files
        self._finding = Batcher(self._find, largest=LARGEST_BATCH, at_once=BATCHES, patience=PATIENCE_SECONDS)

    async def resolve(self, account_id: UUID, request: JobRequest) -> tuple[JobInput, ...]:
        """The inputs of a request, with their files but for those that are URLs.

        Raises:
            InvalidRequest: names every input that is no file of the account, or cannot become one.
        """
        wanted = [identifier for one in request.inputs if (identifier := _file_id(one))]
        known = await self._finding((account_id, wanted)) if wanted else {}
        jobs = await self._succeeded(account_id, request.inputs)
        if problems := list(self._problems(request.inputs, known, jobs)):
            raise InvalidRequest(f"`{problems[0].field}`: {problems[0].message}.", problems)
        resolved = []
        for number, one in enumerate(request.inputs):
            file = None
            if (file_id := _file_id(one)) is not None:
                file = known[file_id]
            elif one.data_url is not None:
                field = f"inputs[{number}].data_url"
                file = input_file((await self._files.decode(account_id, one.data_url, field=field)).file)
            use = None if one.use is None else FrameUse(one.use)
            adjust = request.mode == "adjust"
            resolved.append(JobInput(InputRole(one.role), file, one.url, _job_id(one), use, adjust=adjust))
        return tuple(resolved)

    async def _succeeded(self, account_id: UUID, inputs: Sequence[InputRequest]) -> Collection[UUID]:
        """The jobs of the account among those that are named whose video there should be."""
        named = [(account_id, job_id) for one in inputs if (job_id := _job_id(one))]
        if not named:
            return ()
        async with self._database.read() as conn:
            found = await repository.owned(conn, named)
        return {job.id for job in found.values() if job.state is State.SUCCEEDED}

    def _problems(self, inputs: Sequence[InputRequest], known: Files, jobs: Collection[UUID]) -> Iterator[FieldError]:
        for number, one in enumerate(inputs):
            if one.file_id is not None and _file_id(one) not in known:
                yield FieldError(f"inputs[{number}].file_id", "not_found", NO_FILE)
            if one.job_id is not None and _job_id(one) not in jobs:
                yield FieldError(f"inputs[{number}].job_id", "not_found", NO_VIDEO)
            if one.url is not None:
                try:
                    self._files.check_url(one.url)
                except InvalidUrl as error:
                    yield FieldError(f"inputs[{number}].url", "invalid_url", str(error))

    async def _find(self, asked: Sequence[tuple[UUID, Sequence[UUID]]]) -> Sequence[Files]:
        """The files of concurrent requests, each of an account and the ids that it names."""
        pairs = {(account_id, file_id) for account_id, file_ids in asked for file_id in file_ids}
        found = await self._files.of_ids(pairs)
        return [
            {file_id: input_file(file) for file_id in file_ids if (file := found.get((account_id, file_id)))}
            for account_id, file_ids in asked
        ]


def _job_id(one: InputRequest) -> UUID | None:
    return decode(Prefix.JOB, one.job_id) if one.job_id is not None else None


def _file_id(one: InputRequest) -> UUID | None:
    return decode(Prefix.FILE, one.file_id) if one.file_id is not None else None
