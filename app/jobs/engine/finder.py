"""Finds the record of a submission whose reply was lost, and buys nothing."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app.jobs.db import repository, submissions
from app.jobs.db.submissions import Open
from app.jobs.engine.context import Workbench
from app.jobs.records import Job, Submission
from app.providers.base import (
    Absent,
    FindOutcome,
    Found,
    Inconclusive,
    Likeness,
    Missing,
    Order,
    Provider,
    Rival,
    Search,
    Unreadable,
)

#: With more open submissions beside it, a record is assigned to none.
MOST_RIVALS = 1000
#: Abandoned submissions that were made within this time of another may own a record that looks like its own.
RIVALRY = timedelta(hours=1)


class Finder:
    """Asks providers, and the ledger about what they answer."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def hinted(self, provider: Provider, submission: Submission) -> Found | Inconclusive | None:
        """What the provider itself says of the record that a callback named; None: it has none that may be ours."""
        if submission.hint is None or await Surroundings(self._bench, submission).owned([submission.hint]):
            return None  # a record of another submission cannot be this one's, even if a callback named it
        # The token in the URL vouches for the callback; that there is such a record only the provider can say.
        read = await provider.poll(submission.hint)
        if isinstance(read, Unreadable):
            return Inconclusive(f"a callback named {submission.hint}, and {read.detail}")
        return None if isinstance(read, Missing) else Found(submission.hint)

    async def search(
        self, provider: Provider, job: Job, submission: Submission, hinted: Inconclusive | None, now: datetime
    ) -> FindOutcome:
        """By the provider's own search: our reference, or its list.

        ``hinted`` is a record that was named and cannot be read just now: it stands against an absence. ``now`` is by
        the database's clock.
        """
        search = Search(
            order=_order(job, submission),
            ref=submission.id,
            earliest=submission.created_at,
            latest=submission.send_deadline,
            now=now,
        )
        outcome = await provider.find(search, Surroundings(self._bench, submission))
        if isinstance(outcome, Absent) and submission.accepted_at is not None:
            return Inconclusive("it is not found, and the provider had said that it accepted it")
        return hinted if hinted is not None and isinstance(outcome, Absent) else outcome


class Surroundings:
    """What we know about the upstream account that a submission was sent to: the port's ``Ledger``."""

    def __init__(self, bench: Workbench, submission: Submission) -> None:
        self._bench = bench
        self._submission = submission
        self._connections = bench.registry.sharing(submission.connection)

    async def owned(self, remote_ids: Collection[str]) -> Mapping[str, datetime]:
        async with self._bench.database.read() as connection:
            return await submissions.owned_of(connection, self._connections, remote_ids)

    async def rivals(self) -> Sequence[Rival]:
        mine = self._submission
        async with self._bench.database.read() as connection:
            beside = await submissions.open_beside(connection, mine, self._connections, RIVALRY, MOST_RIVALS)
            jobs = await repository.of_ids(connection, {one.job_id for one in beside} | {mine.job_id})
        rivals = [Rival(_order(jobs[one.job_id], one), self._interchangeable(one)) for one in beside]
        if len(beside) == MOST_RIVALS:  # there may be more, with any order
            rivals.append(Rival(_order(jobs[mine.job_id], mine), interchangeable=False))
        return rivals

    def _interchangeable(self, other: Open) -> bool:
        mine = self._submission
        equal = mine.order_hash is not None and mine.order_hash == other.order_hash
        return equal and mine.account_id == other.account_id


def shows_another_order(provider: Provider | None, job: Job, submission: Submission, raw: Any) -> bool:
    """Whether a record cannot be of this submission, though it has its id: a restarted server may number anew."""
    if provider is None or not isinstance(raw, Mapping):
        return False
    return provider.likeness(raw, _order(job, submission)) is Likeness.EXCLUDED


def _order(job: Job, submission: Submission | Open) -> Order:
    return job.choice(submission.model).ordered.order(submission.upstream_model)
