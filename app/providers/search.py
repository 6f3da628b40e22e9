"""What a provider's list of records says about a submission whose reply was lost.

Finding is cheap, absence is dear: only absence permits a second purchase. Real lists rename models, round seconds, trim
prompts, lag, repeat, and sort by a clock that is not ours. So a record that looks different is a doubt and not
another order, and a list reaches back far enough only where it shows a record that is known, by its id, to be older.
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
    Listed,
    Listing,
    Order,
    Rival,
    Search,
)

#: How far the clocks of a provider's replicas may lie apart, and its clock from ours once its skew is known.
CLOCK_SLACK = timedelta(minutes=5)
#: The most records that are named in a doubt.
NAMED = 10

Compare = Callable[[Mapping[str, object], Order], Likeness]


def older_than_search(records: Sequence[Listed], search: Search, owned: Mapping[str, datetime]) -> int | None:
    """Where, in records listed newest first, those begin that are older than the submission; None: not in these.

    Only a record of ours proves it, one that existed before the submission was made. The slack is for a provider whose
    replicas each have a clock of their own.
    """
    before = search.earliest - CLOCK_SLACK
    return next((place for place, one in enumerate(records) if owned.get(one.remote_id, search.now) < before), None)


async def verdict(
    listing: Listing, search: Search, ledger: Ledger, compare: Compare, *, exclusive: bool, proves_absence: bool
) -> FindOutcome:
    """What a list says about a submission.

    ``exclusive``: only this gateway orders on the account. ``proves_absence``: the provider lists everything that
    it has accepted. Of several exact records the oldest is taken: the open submissions of equal orders are
    interchangeable, and each takes one.
    """
    owned = await ledger.owned([record.remote_id for record in listing.records])
    older = older_than_search(listing.records, search, owned) if listing.newest_first else None
    # Also those behind a record that is older: a replica's clock may have put ours there.
    unowned = [record for record in listing.records if record.remote_id not in owned]
    likeness = {record.remote_id: compare(record.shown, search.order) for record in unowned}
    doubts = [record for record in unowned if likeness[record.remote_id] is not Likeness.EXCLUDED]
    alike = [record for record in doubts if likeness[record.remote_id] is Likeness.EXACT and record.usable]
    exact = [record for record in alike if _in_window(record, search)]
    if exact and (found := await _unrivalled(exact, ledger, compare, exclusive=exclusive)):
        return Found(min(found, key=lambda record: record.created_at or search.now).remote_id)
    if doubts:
        return Inconclusive(f"may be one of: {', '.join(record.remote_id for record in doubts[:NAMED])}")
    if not listing.ended and older is None:
        return Inconclusive("the list does not reach back to a record that is known to be older")
    return Absent() if proves_absence else Inconclusive("it is not listed, which proves nothing at this provider")


async def _unrivalled(
    exact: Sequence[Listed], ledger: Ledger, compare: Compare, *, exclusive: bool
) -> Sequence[Listed]:
    """The exact records that can only be this submission's, or that of an interchangeable one."""
    rivals = await ledger.rivals()
    ours, interchangeable = [], 0
    for record in exact:
        contenders = [rival for rival in rivals if _may_be(record, rival, compare)]
        if all(rival.interchangeable for rival in contenders):
            ours.append(record)
            interchangeable = len(contenders)
    # More records than submissions that can own them: on a shared account one of them is a stranger's.
    return ours if exclusive or len(ours) <= 1 + interchangeable else []


def _may_be(record: Listed, rival: Rival, compare: Compare) -> bool:
    """Whether a record that shows our prompt may be a rival's: providers trim and cut prompts, and make up none."""
    another = is_another_prompt(record.shown.get("prompt"), rival.order.prompt)
    return not another and compare(record.shown, rival.order) is not Likeness.EXCLUDED


def _in_window(record: Listed, search: Search) -> bool:
    """Whether the provider may have made a record for the submission, by its clock or with its skew taken out."""
    if record.created_at is None:
        return False
    earliest, latest = search.earliest - CLOCK_SLACK, search.latest + CLOCK_SLACK
    return any(earliest <= made_at <= latest for made_at in (record.created_at, record.created_at - record.skew))


def reaches_back(listing: Listing, since: datetime) -> bool:
    """Whether a list was read back to a time, as far as the provider's clock can be trusted: enough for an audit."""
    if not listing.newest_first or not listing.records:
        return False
    last = listing.records[-1]
    return last.created_at is not None and last.created_at - last.skew < since - CLOCK_SLACK


def folded(prompt: str) -> str:
    """A prompt without the differences that providers make to one: Unicode composition, and white space."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())


def is_another_prompt(shown: object, ordered: str) -> bool:
    """Whether a listed prompt cannot be the ordered one: neither it, nor the beginning of it."""
    return isinstance(shown, str) and not folded(ordered).startswith(folded(shown))
