"""Gives the prepared inputs of a job to a provider, in one of the ways that its adapter declares."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from app.files.service import FileService
from app.jobs.records import Job
from app.providers.inputs import InputFile, InputWay, ProviderInput
from app.providers.outcomes import ProviderRequest
from app.providers.traits import Traits

#: How long after the job's deadline a provider may still fetch an input: it may begin a render late.
FETCHABLE_FOR = timedelta(days=1)
#: Requests whose inputs are read into memory at once.
LOADED_AT_ONCE = 4


class NoWay(Exception):
    """An input is too large to be sent in the body of a create, and there is no other way."""


class SentInputs:
    """Places inputs in requests. Without a public URL, providers cannot fetch them."""

    def __init__(self, files: FileService) -> None:
        self._files = files
        self.loading = asyncio.Semaphore(LOADED_AT_ONCE)

    def most_bytes(self, traits: Iterable[Traits]) -> int | None:
        """How large an input of any of these connections may be; None without a limit."""
        limits = [one.most_input_bytes(fetchable=self._files.urls.exist) for one in traits]
        return None if None in limits else max((limit for limit in limits if limit is not None), default=0)

    def placed(self, job: Job, request: ProviderRequest, traits: Traits) -> ProviderRequest:
        """The request with the URL of each input, or the way in which it will be loaded. Reads nothing.

        The same for every submission of a job to a connection.

        Raises:
            NoWay
        """
        if not request.inputs:
            return request
        return replace(request, inputs=tuple(self._placed(job, one, traits) for one in request.inputs))

    def _placed(self, job: Job, one: ProviderInput, traits: Traits) -> ProviderInput:
        for way in traits.input_ways:
            if way is not InputWay.PUBLIC_URL and one.file.size_bytes <= traits.max_inline_bytes:
                return replace(one, way=way)
            url = self._files.urls.of(one.file.id, one.name, job.deadline_at + FETCHABLE_FOR)
            if way is InputWay.PUBLIC_URL and url is not None:
                return replace(one, way=way, url=url)
        raise NoWay(f"{one.role} has {one.file.size_bytes} bytes; {traits.max_inline_bytes} can be sent")

    async def loaded(self, request: ProviderRequest) -> ProviderRequest:
        """The request with the bytes of the inputs that go into its body.

        Raises:
            StorageError: they cannot be read now.
        """
        return replace(request, inputs=tuple([await self._loaded(one) for one in request.inputs]))

    async def _loaded(self, one: ProviderInput) -> ProviderInput:
        return one if one.way is InputWay.PUBLIC_URL else replace(one, data=await self._content(one.file))

    async def _content(self, file: InputFile) -> bytes:
        return await self._files.content(file.object_key, file.size_bytes)
