"""The auditor: what must hold in the tables at any moment, and against the providers' own books."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from app.jobs.states import ALLOWED, FINAL, LANES, LIVE_SUBMISSIONS, ChargeCertainty, State, SubmissionState
from tests.support.engine_fixture import EngineDriver
from tests.support.scripted_provider import NOTHING, PRICE, Books, Phase, Record

#: The states in which a job has a live submission.
BOUGHT = frozenset({State.SUBMITTING, State.SUBMIT_UNKNOWN, State.RUNNING, State.STORING})
#: The worst of these is what a job says.
WORST = (ChargeCertainty.POSSIBLE, ChargeCertainty.CERTAIN, ChargeCertainty.NONE)


@dataclass(frozen=True)
class AdmittedSubmission:
    """A row of our ledger, and the provider's record behind it, if there is one."""

    id: UUID
    state: SubmissionState
    connection: str
    remote_id: str | None
    cost: Decimal | None
    fetches: int
    certainty: ChargeCertainty
    bought: Record | None

    @property
    def live(self) -> bool:
        return self.state in LIVE_SUBMISSIONS


@dataclass(frozen=True)
class Audited:
    """A job as its tables and the books tell of it."""

    id: UUID
    state: State
    cost: Decimal | None
    certainty: ChargeCertainty
    limit: Decimal | None
    lane: str | None
    purchases: tuple[AdmittedSubmission, ...]
    events: tuple[tuple[str, int], ...]
    watched: int
    videos: int


async def audited(engine: EngineDriver) -> list[Audited]:
    """Every job, in the order of its creation."""
    records = {record.ref: record for books in engine.books.values() for record in books.records.values()}
    ledger: defaultdict[UUID, list[AdmittedSubmission]] = defaultdict(list)
    for job_id, id_, state, *rest, certainty in await engine.rows(
        "SELECT job_id, id, state, connection, remote_id, cost, fetches, charge_certainty "
        "FROM submissions ORDER BY number"
    ):
        facts = (id_, SubmissionState(state), *rest, ChargeCertainty(certainty), records.get(id_))
        ledger[job_id].append(AdmittedSubmission(*facts))
    events: defaultdict[UUID, list[tuple[str, int]]] = defaultdict(list)
    for job_id, event_type, version in await engine.rows("SELECT subject_id, type, version FROM events ORDER BY seq"):
        events[job_id].append((event_type, version))
    rows = await engine.rows(
        """
        SELECT id, state, cost, charge_certainty, max_cost,
            (SELECT lane FROM schedule WHERE schedule.job_id = jobs.id),
            (SELECT count(*) FROM watches WHERE watches.job_id = jobs.id),
            (SELECT count(*) FROM assets WHERE assets.job_id = jobs.id AND kind = 'video')
        FROM jobs ORDER BY id
        """
    )
    return [
        Audited(
            id_,
            State(state),
            cost,
            ChargeCertainty(certainty),
            limit,
            lane,
            tuple(ledger[id_]),
            tuple(events[id_]),
            watched,
            videos,
        )
        for id_, state, cost, certainty, limit, lane, watched, videos in rows
    ]


def check(job: Audited, books: Mapping[str, Books]) -> None:
    """What holds at any moment."""
    live = [purchase for purchase in job.purchases if purchase.live]
    assert len(live) == (job.state in BOUGHT), "one live submission while it is bought or rendered, and none otherwise"
    lane = LANES.get(job.state)
    assert job.lane == (lane and lane.value), "a live job is on the schedule, in the lane of its state"
    assert (job.videos > 0) or job.state is not State.SUCCEEDED, "succeeded means stored"

    known = [purchase.cost for purchase in job.purchases if purchase.cost is not None]
    unsure = any(one.cost is None and one.certainty is not ChargeCertainty.NONE for one in job.purchases)
    assert job.cost == (sum(known, NOTHING) if known or not unsure else None) or not job.events[1:], "cost is the sum"
    certainties = {purchase.certainty for purchase in job.purchases} | {ChargeCertainty.NONE}
    assert job.certainty is next(one for one in WORST if one in certainties), "as sure as its ledger"

    versions = [version for _, version in job.events]
    assert all(one < next_ for one, next_ in pairwise(versions)), "versions grow"

    # The provider's side. What a render may come to cost counts from the moment it was accepted.
    bought = [one for one in job.purchases if one.bought is not None]
    at_most = sum((books[one.connection].at_most(one.bought) for one in bought if one.bought), NOTHING)
    assert at_most <= (job.limit or PRICE), "nothing is bought twice"
    for one in bought:
        assert one.bought is not None
        assert one.remote_id in {None, one.bought.remote_id}, "a submission has its own record"
        owed = books[one.connection].charged(one.bought)
        settled = not one.live and not job.watched
        assert not (owed and settled and one.certainty is ChargeCertainty.NONE), "what is charged is not called free"


def check_order(states: list[State]) -> None:
    """The log of a job: every step is a move of the table."""
    assert all(move in ALLOWED for move in pairwise(states)), states


def check_end(job: Audited, books: Mapping[str, Books], fetch_tries: int) -> None:
    """What holds when nothing more will happen: our ledger is the provider's."""
    assert job.state in FINAL, "every job ends"
    assert not job.watched
    for one in job.purchases:
        record = one.bought
        if record is None:
            assert one.certainty is not ChargeCertainty.CERTAIN, "nothing was bought, and we are certain that it was"
            continue
        owed = books[one.connection].charged(record)
        if one.remote_id is None or record.forgotten:
            assert not owed or one.certainty is not ChargeCertainty.NONE
            continue
        assert one.cost in {None, owed}, "our cost is the provider's"
        if record.phase is Phase.FINISHED:
            billed = ChargeCertainty.CERTAIN if owed else ChargeCertainty.NONE
            assert (one.cost, one.certainty) == (owed, billed), "a video that was made is on the bill"
            assert job.videos or one.fetches >= fetch_tries, "a video that was paid for is kept, where it can be had"
