"""Finds the remote job of a submission whose reply was lost. It submits nothing."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app.jobs.db import repository, submissions
from app.jobs.db.submissions import OpenSubmission
from app.jobs.engine.context import EngineContext
from app.jobs.records import Job, Submission
from app.providers.base import (
    Absent,
    FindOutcome,
    Found,
    Inconclusive,
    Likeness,
    Missing,
    Provider,
    ProviderRequest,
    Rival,
    Search,
    Unreadable,
)

#: With more rivals than this a listed remote job is assigned to none of them.
MOST_RIVALS = 1000
#: Abandoned submissions made within this time of another one may own a remote job that matches both.
RIVALRY = timedelta(hours=1)


class Finder:
    """Queries providers and compares their replies with the ledger."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context

    async def of_callback(self, provider: Provider, submission: Submission) -> Found | Inconclusive | None:
        """Check the remote job that a callback named; None if it cannot be the submission's."""
        named = submission.callback_remote_id
        if named is None or await LedgerView(self._context, submission).owned([named]):
            return None  # owned by another submission, whatever the callback says
        # The token in the URL authenticates the callback; only the provider can confirm that the remote job exists.
        read = await provider.poll(named)
        if isinstance(read, Unreadable):
            return Inconclusive(f"a callback named {named}, but {read.detail}")
        return None if isinstance(read, Missing) else Found(named)

    async def search(
        self, provider: Provider, job: Job, submission: Submission, called_back: Inconclusive | None, now: datetime
    ) -> FindOutcome:
        """Search at the provider: by our reference, or in its list.

        ``called_back`` is a remote job that a callback named and that cannot be read now: it contradicts an absence.
        ``now`` is the database's time.
        """
        search = Search(
            order=_request(job, submission),
            ref=submission.id,
            earliest=submission.created_at,
            latest=submission.send_deadline,
            now=now,
        )
        result = await provider.find(search, LedgerView(self._context, submission))
        if isinstance(result, Absent) and submission.accepted_at is not None:
            return Inconclusive("it was not found, but the provider had reported that it accepted it")
        return called_back if called_back is not None and isinstance(result, Absent) else result


class LedgerView:
    """The ledger of the upstream account of a submission: implements the port's ``Ledger``."""

    def __init__(self, context: EngineContext, submission: Submission) -> None:
        self._context = context
        self._submission = submission
        self._connections = context.registry.sharing(submission.connection)

    async def owned(self, remote_ids: Collection[str]) -> Mapping[str, datetime]:
        async with self._context.database.read() as conn:
            return await submissions.owned_of(conn, self._connections, remote_ids)

    async def rivals(self) -> Sequence[Rival]:
        mine = self._submission
        async with self._context.database.read() as conn:
            found = await submissions.open_rivals(conn, mine, self._connections, RIVALRY, MOST_RIVALS)
            jobs = await repository.of_ids(conn, {one.job_id for one in found} | {mine.job_id})
        rivals = [Rival(_request(jobs[one.job_id], one), self._interchangeable(one)) for one in found]
        if len(found) == MOST_RIVALS:  # there may be more, for any request
            rivals.append(Rival(_request(jobs[mine.job_id], mine), interchangeable=False))
        return rivals

    def _interchangeable(self, other: OpenSubmission) -> bool:
        mine = self._submission
        equal = mine.order_hash is not None and mine.order_hash == other.order_hash
        return equal and mine.account_id == other.account_id


def shows_another_request(provider: Provider | None, job: Job, submission: Submission, raw: Any) -> bool:
    """Whether a remote job with this submission's id is another one: a restarted server may reuse ids."""
    if provider is None or not isinstance(raw, Mapping):
        return False
    return provider.likeness(raw, _request(job, submission)) is Likeness.EXCLUDED


def _request(job: Job, submission: Submission | OpenSubmission) -> ProviderRequest:
    return job.spec_for(submission.model).provider_request(submission.upstream_model)
