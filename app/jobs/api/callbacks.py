"""Callbacks of providers. Their content is not trusted: a callback only makes the gateway poll the provider at once.

Each submission has its own URL, ``/v1/callbacks/{connection}/{token}``. The token names the submission and proves that
the gateway issued the URL for this connection; nothing about it is stored.
"""

from collections.abc import Mapping
from uuid import UUID

import structlog

from app.errors import InvalidRequest, NotFound
from app.ids import Prefix, encode
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db import repository, submissions
from app.jobs.states import LIVE_SUBMISSIONS, SubmissionState
from app.jobs.transitions import Changes, Transitions
from app.providers.base import Callback
from app.providers.registry import Registry, UnknownConnection

NO_CALLBACK = "There is no submission with this callback URL."

log = structlog.get_logger()


class CallbackService:
    """Receives callbacks. They change no state: the remote id is recorded, and the provider is polled at once."""

    def __init__(
        self, transitions: Transitions, registry: Registry, urls: CallbackUrls, *, reconcile_for: float
    ) -> None:
        self._transitions = transitions
        self._registry = registry
        self._urls = urls
        self._reconcile_for = reconcile_for

    async def receive(self, connection: str, token: str, headers: Mapping[str, str], body: bytes) -> None:
        """Verify a callback and make its job due.

        Raises:
            NotFound: no such connection, or a token that was not issued for it.
            InvalidRequest: the signature is invalid, or the body does not have the provider's shape.
        """
        submission_id = self._urls.submission_of(connection, token)
        if submission_id is None:
            raise NotFound(NO_CALLBACK)
        try:
            provider = self._registry.provider(connection)
        except UnknownConnection:
            raise NotFound(NO_CALLBACK) from None
        callback = provider.read_callback(headers, body)
        if callback is None:
            log.warning("invalid callback", connection=connection, submission=encode(Prefix.SUBMISSION, submission_id))
            raise InvalidRequest(
                "The callback's signature is invalid, or its body does not have the provider's shape.", []
            )
        async with self._transitions.begin() as changes:
            await self._record(changes, submission_id, callback)

    async def _record(self, changes: Changes, submission_id: UUID, callback: Callback) -> None:
        conn = changes.conn
        found = await submissions.get(conn, submission_id)
        job = await repository.lock(conn, found.job_id) if found else None
        submission = await submissions.get(conn, submission_id)  # again, under the lock
        if submission is None or job is None:
            raise NotFound(NO_CALLBACK)
        named = callback.remote_id if submission.remote_id is None else None
        if named is not None:
            await submissions.record_callback(conn, submission_id, named)
        if submission.state in LIVE_SUBMISSIONS:
            await changes.make_due(job)
        elif named is not None or submission.state is SubmissionState.ABANDONED:
            # Its result had been recorded as refused, absent or abandoned: the provider's status decides.
            await changes.reconcile(submission, next_in=0, last=self._reconcile_for)
