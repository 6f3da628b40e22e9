"""Resolves a submission whose reply was lost from the provider's list of remote jobs.

A false "absent" is the expensive error, because only absence allows a second submission. Real lists rename models,
round seconds, trim prompts, lag, repeat entries, and sort by the provider's clock. So a remote job that looks different
is a possible match, not an exclusion, and a list reaches back far enough only if it contains a remote job that is
known, by its id, to be older than the submission.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from app.providers.outcomes import (
    Absent,
    FindOutcome,
    Found,
    Inconclusive,
    Ledger,
    Likeness,
    Listing,
    ProviderRequest,
    RemoteJobSummary,
    Rival,
    Search,
)

#: The largest difference between the clocks of a provider's replicas, and between its clock and ours after skew.
CLOCK_SLACK = timedelta(minutes=5)
#: The most possible matches that a message names.
MAX_NAMED = 10

Compare = Callable[[Mapping[str, object], ProviderRequest], Likeness]


def older_than_search(records: Sequence[RemoteJobSummary], search: Search, owned: Mapping[str, datetime]) -> int | None:
    """The index of the first remote job, newest first, that is older than the submission; None if there is none.

    Only a remote job of ours that existed before the submission is proof. The slack covers a provider whose replicas
    have different clocks.
    """
    before = search.earliest - CLOCK_SLACK
    return next((place for place, one in enumerate(records) if owned.get(one.remote_id, search.now) < before), None)


async def evaluate_listing(
    listing: Listing, search: Search, ledger: Ledger, compare: Compare, *, exclusive: bool, proves_absence: bool
) -> FindOutcome:
    """Decide what a list shows about a submission.

    ``exclusive``: only this gateway submits to the account. ``proves_absence``: the provider lists everything that it
    has accepted. Of several exact matches the oldest is taken: unresolved submissions of equal requests are
    interchangeable, and each takes one.
    """
    owned = await ledger.owned([record.remote_id for record in listing.records])
    older = older_than_search(listing.records, search, owned) if listing.newest_first else None
    # Includes entries behind an older one: a replica's slow clock may have sorted ours there.
    unowned = [record for record in listing.records if record.remote_id not in owned]
    likeness = {record.remote_id: compare(record.shown, search.order) for record in unowned}
    doubts = [record for record in unowned if likeness[record.remote_id] is not Likeness.EXCLUDED]
    alike = [record for record in doubts if likeness[record.remote_id] is Likeness.EXACT and record.usable]
    exact = [record for record in alike if _in_window(record, search)]
    if exact and (found := await _unambiguous(exact, ledger, compare, exclusive=exclusive)):
        return Found(min(found, key=lambda record: record.created_at or search.now).remote_id)
    if doubts:
        return Inconclusive(f"possible matches: {', '.join(record.remote_id for record in doubts[:MAX_NAMED])}")
    if not listing.ended and older is None:
        return Inconclusive("the list does not reach back to a remote job that is known to be older")
    return (
        Absent() if proves_absence else Inconclusive("it is not listed, which does not prove absence at this provider")
    )


async def _unambiguous(
    exact: Sequence[RemoteJobSummary], ledger: Ledger, compare: Compare, *, exclusive: bool
) -> Sequence[RemoteJobSummary]:
    """The exact matches that can only belong to this submission or to an interchangeable one."""
    rivals = await ledger.rivals()
    ours, interchangeable = [], 0
    for record in exact:
        contenders = [rival for rival in rivals if _may_be(record, rival, compare)]
        if all(rival.interchangeable for rival in contenders):
            ours.append(record)
            interchangeable = len(contenders)
    # More matches than submissions that can own them: on a shared account, another client owns one of them.
    return ours if exclusive or len(ours) <= 1 + interchangeable else []


def _may_be(record: RemoteJobSummary, rival: Rival, compare: Compare) -> bool:
    """Whether a match may belong to a rival. Providers trim and cut prompts, but never invent one."""
    another = is_another_prompt(record.shown.get("prompt"), rival.order.prompt)
    return not another and compare(record.shown, rival.order) is not Likeness.EXCLUDED


def _in_window(record: RemoteJobSummary, search: Search) -> bool:
    """Whether the creation time fits the submission, by the provider's clock or with its skew removed."""
    if record.created_at is None:
        return False
    earliest, latest = search.earliest - CLOCK_SLACK, search.latest + CLOCK_SLACK
    return any(earliest <= made_at <= latest for made_at in (record.created_at, record.created_at - record.skew))


def reaches_back(listing: Listing, since: datetime) -> bool:
    """Whether a list reaches back to ``since`` by the provider's clock: accurate enough for an audit."""
    if not listing.newest_first or not listing.records:
        return False
    last = listing.records[-1]
    return last.created_at is not None and last.created_at - last.skew < since - CLOCK_SLACK


def folded(prompt: str) -> str:
    """A prompt normalised for comparison: providers change Unicode composition and white space."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())


def is_another_prompt(shown: object, ordered: str) -> bool:
    """Whether a listed prompt is neither the submitted one nor a prefix of it."""
    return isinstance(shown, str) and not folded(ordered).startswith(folded(shown))
