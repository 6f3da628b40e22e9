"""Whatever happens, in whatever order, our ledger is the providers': hypothesis looks for an order in which it is not.

The real services on real Postgres; workers that stop at a checkpoint, go on too late, die, or use a claim that is over;
time that jumps. After every move the tables are audited (docs/architecture.md, "Invariants"); at the end
everything has come to an end.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.errors import Conflict
from app.failpoints import Failpoint
from app.infra.queue import Lane
from app.jobs.states import FINAL, State
from app.providers.base import CancelOutcome
from tests.support.database import add_account, empty
from tests.support.engine_fixture import EngineDriver, opened_engine
from tests.support.invariants import audited, check, check_end, check_order
from tests.support.lane_driver import Step
from tests.support.paused_worker import Floor
from tests.support.scripted_provider import ACCEPTED, FATES, KINDS, LOST, Phase, Record

T = TypeVar("T")

MOST_JOBS = 4
NOWHERE = Failpoint.CREATE_COMMITTED  # no step passes it: it runs to its end
#: Where a step can stand with no lock in its hands.
PLACES = {
    Lane.SUBMIT: (None, Failpoint.SUBMIT_ANSWERED, NOWHERE),
    Lane.RESOLVE: (None, Failpoint.CONFIRM_ANSWERED),
    Lane.POLL: (None, Failpoint.POLL_ANSWERED, Failpoint.UPSTREAM_CANCELED),
    Lane.STORE: (None, Failpoint.STORE_PUT),
    Lane.RECONCILE: (None, Failpoint.WATCH_ANSWERED, Failpoint.STORE_PUT),
}
LANES = tuple(PLACES)
SUBMIT = LANES.index(Lane.SUBMIT)

KIND = st.sampled_from(sorted(KINDS))
FATES_OF_ALL = st.tuples(*[st.sampled_from((ACCEPTED, LOST, LOST, *FATES))] * len(KINDS))
PLACES_OF_TWO = st.lists(st.integers(0, len(KINDS) - 1), min_size=2, max_size=2)
PICK = st.integers(0, 11)
YES_OR_NO = st.booleans()
RARELY = st.sampled_from((False, False, True))
LIMIT = st.sampled_from((None, "0.10", "0.20", "9"))
ENDS = (Phase.FINISHED, Phase.FINISHED, Phase.FREE, Phase.FREE, Phase.BILLED, Phase.CANCELED)
CANCELS = (CancelOutcome.REQUESTED, CancelOutcome.NOT_CANCELLABLE, CancelOutcome.FAILED)
DEADLINES = (3600, 300)
MOMENTS = (0, 6, 6, 25)
WHILES = (60, 130, 130, 700, 4000)
WORKS = st.sampled_from((LANES, LANES, *((lane,) for lane in LANES), ()))


def chosen(candidates: Sequence[T], pick: int) -> Sequence[T]:
    """One of them, or none where there is none: what is drawn must not depend on what is there."""
    return [candidates[pick % len(candidates)]] if candidates else []


class Machine(RuleBasedStateMachine):
    """One example: some jobs of one account. Every rule may run at any time, and does nothing where it cannot."""

    runner: ClassVar[asyncio.Runner]
    engine: ClassVar[EngineDriver]

    def __init__(self) -> None:
        super().__init__()
        self.floor = Floor()
        self.jobs: list[UUID] = []
        self.over: list[Step] = []  # claims that were used once
        self.ends: dict[UUID, State] = {}
        self.late = False
        self.stack = AsyncExitStack()
        self.run(self._begin())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def _begin(self) -> None:
        await self.stack.enter_async_context(self.floor.opened())
        await empty(self.engine.resources.database)
        for books in self.engine.books.values():
            books.forget()
        async with self.engine.resources.database.begin() as conn:
            self.engine.account_id = await add_account(conn)

    # The customer -----------------------------------------------------------------------------------------------------

    @initialize(
        kinds=st.permutations(sorted(KINDS)), fates=FATES_OF_ALL, limit=LIMIT, places=PLACES_OF_TWO, late=YES_OR_NO
    )
    def begin(self, kinds: list[str], fates: list[str], limit: str | None, places: list[int], late: bool) -> None:
        """``late``: what is still being rendered at the end of it all comes after every deadline."""
        self.late = late
        for kind, fate, other in zip(kinds, fates, (*kinds[1:], kinds[0]), strict=True):
            self.engine.books[kind].fates.append(fate)
            self.run(self._order(kind, other, 3600, limit))
        for place in places:
            self.run(self._stop(SUBMIT, place))

    @rule(kind=KIND, other=KIND, deadline=st.sampled_from(DEADLINES), limit=LIMIT, pick=PICK)
    def order_or_cancel(self, kind: str, other: str, deadline: int, limit: str | None, pick: int) -> None:
        if len(self.jobs) < MOST_JOBS:
            self.run(self._order(kind, other, deadline, limit))
        elif pick < len(self.jobs):
            with suppress(Conflict):  # it has ended
                self.run(self.engine.cancel(self.jobs[pick]))

    async def _order(self, kind: str, other: str, deadline: int, limit: str | None) -> None:
        fallbacks = [f"books/{other}"] if other != kind else []
        job_id = await self.engine.order(kind, fallbacks=fallbacks, deadline_seconds=deadline, max_cost=limit)
        self.jobs.append(job_id)

    # Providers --------------------------------------------------------------------------------------------------------

    @rule(pick=PICK, end=st.sampled_from(ENDS))
    def end_a_render(self, pick: int, end: Phase) -> None:
        for record in chosen(self.renders(), pick):
            record.phase = end

    @rule(kind=KIND, what=st.sampled_from(("answers", "forgotten", "video_is_there", *CANCELS, *FATES)), pick=PICK)
    def change_manners(self, kind: str, what: str, pick: int) -> None:
        books = self.engine.books[kind]
        if isinstance(what, CancelOutcome):
            books.cancel_answer = what
        elif what in FATES:
            books.fates.append(what)
        elif what == "forgotten":
            for record in chosen(list(books.records.values()), pick):
                record.forgotten = not record.forgotten
        else:
            setattr(books, what, not getattr(books, what))

    @rule(pick=PICK, named=st.sampled_from(("its own", "its own", "another's", "nobody's")), other=PICK)
    def call_back(self, pick: int, named: str, other: int) -> None:
        for record in chosen(self.records(), pick):
            self.run(self._call_back(record, named, other))

    async def _call_back(self, record: Record, named: str, other: int) -> None:
        for job_id in self.jobs:
            for submission in await self.engine.ledger(job_id):
                if submission.id == record.ref:
                    mine = self.records(submission.connection)
                    names = {"its own": record, "another's": mine[other % len(mine)]}
                    told = names[named].remote_id if named in names else "unheard-of"
                    await self.engine.call_back(submission, told)

    # Workers ----------------------------------------------------------------------------------------------------------

    @rule(first=PICK, place=PICK)
    def stop_in_the_middle(self, first: int, place: int) -> None:
        self.run(self._stop(first, place))

    async def _stop(self, first: int, place: int) -> None:
        """A step in the first lane that has something to do."""
        for lane in (LANES * 2)[first % len(LANES) :][: len(LANES)]:
            for step in await self.engine.claim(lane, 1):
                if lane is not Lane.SUBMIT:  # a purchase is never made twice by the worker that has it
                    self.over.append(step)
                await self.floor.start(lane, PLACES[lane][place % len(PLACES[lane])], step)
                return

    @rule(pick=PICK, dies=RARELY)
    def go_on_or_die(self, pick: int, dies: bool) -> None:
        for step in chosen(self.floor.standing, pick):
            self.run(self.floor.kill(step) if dies else self.floor.resume(step))

    @rule(pick=PICK)
    def use_a_claim_again(self, pick: int) -> None:
        for step in chosen(self.over, pick):
            self.run(self.floor.start("again", NOWHERE, step))

    @rule(seconds=st.sampled_from(MOMENTS))
    def pass_a_moment(self, seconds: int) -> None:
        """And let other workers do what is due then."""
        self.run(self._pass(seconds, LANES))

    @rule(seconds=st.sampled_from(WHILES), works=WORKS)
    def pass_a_while(self, seconds: int, works: tuple[Lane, ...]) -> None:
        self.run(self._pass(seconds, works))

    async def _pass(self, seconds: int, works: tuple[Lane, ...]) -> None:
        await self.engine.pass_time(seconds)
        if works:
            await self.engine.work(*works)

    # The audit --------------------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_and_the_books_agree(self) -> None:
        for job in self.run(audited(self.engine)):
            check(job, self.engine.books)
            if job.state in FINAL:
                assert self.ends.setdefault(job.id, job.state) is job.state, "an end is final"
            else:
                assert job.id not in self.ends, "an end is final"

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.run(self.stack.aclose())

    async def _end(self) -> None:
        """Faults stop, and everything comes to its end."""
        for step in list(self.floor.standing):
            await self.floor.resume(step)
        for books in self.engine.books.values():
            books.answers = books.video_is_there = True
        if self.late:
            await self.engine.pass_time(4000)
            await self.engine.work()
        for seconds in (*[100] * 12, *[5000] * 3):
            for record in self.renders():
                record.phase = Phase.FINISHED
            await self.engine.pass_time(seconds)
            await self.engine.work()
            await self.engine.work()
        await self.engine.pass_time(90_000)
        await self.engine.work(Lane.RECONCILE)
        for job in await audited(self.engine):
            check(job, self.engine.books)
            check_end(job, self.engine.books, self.engine.resources.settings.assets.fetch_tries)
            check_order(await self.engine.states(job.id))

    # Looking around ---------------------------------------------------------------------------------------------------

    def records(self, kind: str | None = None) -> list[Record]:
        shelves = [books for name, books in sorted(self.engine.books.items()) if kind in {None, name}]
        return [record for books in shelves for record in books.records.values()]

    def renders(self) -> list[Record]:
        return [record for record in self.records() if record.phase is Phase.RENDERING]


def test_our_ledger_is_the_providers_whatever_happens(postgres_url: str, tmp_path: Path) -> None:
    """On its own loop, since hypothesis runs its examples where no loop runs.

    Takes about 15 s of CPU: each example is a sequence of dozens of real transactions.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        Machine.runner = runner
        Machine.engine = runner.run(stack.enter_async_context(opened_engine(postgres_url, tmp_path)))
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=30,
                    stateful_step_count=25,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    phases=[Phases.generate],  # to make a failure shorter would take minutes
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())
