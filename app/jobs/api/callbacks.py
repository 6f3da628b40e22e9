"""Callbacks: a provider tells us that something happened. A hint, and nothing more: the provider is asked again.

Each submission has a URL of its own, ``/v1/callbacks/{connection}/{token}``. The token names the submission and proves
that we made it up for the provider; nothing about it is stored.
"""

from collections.abc import Mapping
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import InvalidRequest, NotFound
from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.queue import Bell, Lane
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db import reconciliations, repository, schedule, submissions
from app.jobs.states import LIVE_SUBMISSIONS, SubmissionState
from app.providers.base import Callback
from app.providers.registry import Registry, UnknownConnection

NO_CALLBACK = "There is nothing to call back here."

log = structlog.get_logger()


class CallbackService:
    """Takes callbacks in. It changes no state: it notes a remote id, and has the job looked at now."""

    def __init__(
        self, database: Database, registry: Registry, urls: CallbackUrls, bell: Bell, *, watch_for: float
    ) -> None:
        self._database = database
        self._registry = registry
        self._urls = urls
        self._bell = bell
        self._watch_for = watch_for

    async def receive(self, upstream: str, token: str, headers: Mapping[str, str], body: bytes) -> None:
        """
        Raises:
            NotFound: no such connection, or a token that we did not make.
            InvalidRequest: not signed as it must be, or not in the provider's shape.
        """
        submission_id = self._urls.submission_of(upstream, token)
        if submission_id is None:
            raise NotFound(NO_CALLBACK)
        try:
            provider = self._registry.provider(upstream)
        except UnknownConnection:
            raise NotFound(NO_CALLBACK) from None
        callback = provider.read_callback(headers, body)
        if callback is None:
            log.warning("callback refused", connection=upstream, submission=encode(Prefix.SUBMISSION, submission_id))
            raise InvalidRequest("The callback is not signed as it must be, or it is not in the provider's shape.", [])
        async with self._database.begin() as connection:
            await self._take(connection, submission_id, callback)
        self._bell.ring(Lane.POLL, Lane.CONFIRM, Lane.WATCH)

    async def _take(self, connection: AsyncConnection, submission_id: UUID, callback: Callback) -> None:
        found = await submissions.get(connection, submission_id)
        job = await repository.lock(connection, found.job_id) if found else None
        submission = await submissions.get(connection, submission_id)  # as it is now that nobody else changes it
        if submission is None or job is None:
            raise NotFound(NO_CALLBACK)
        hinted = callback.remote_id is not None and submission.remote_id is None
        if callback.remote_id is not None and hinted:
            await submissions.take_hint(connection, submission_id, callback.remote_id)
        if submission.state in LIVE_SUBMISSIONS:
            await schedule.look_now(connection, job)
        elif hinted or submission.state is SubmissionState.ABANDONED:
            # It was taken for refused or absent, or given up, perhaps even by the watch: what the provider says counts.
            await reconciliations.add(connection, submission_id, job.id, next_in=0, last=self._watch_for)
