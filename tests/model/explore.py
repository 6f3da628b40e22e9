"""Breadth first through every world that can be reached. What is broken comes with the shortest way there, in words."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.jobs.states import ALLOWED, FINAL, State, SubmissionState
from tests.model import promises
from tests.model.engine import UNRESOLVED, Engine
from tests.model.environment import Outside
from tests.model.promises import Breach, Mutant, Promise, Setting, Violation
from tests.model.reconciler import Reconciler
from tests.model.world import Clock, Finding, Kind, Move, Record, Step, Submission, Watch, Wire, Worker, World

SENDING = (Step.READY, Step.WAITING)
OUTCOMES = frozenset({Finding.REFUSED, Finding.UNSENT, Finding.UNKNOWN, Finding.ABSENT, Finding.INCONCLUSIVE})


@dataclass(frozen=True, slots=True)
class Explored:
    """What an exploration brought to light. ``story``: which promise is broken, and how it comes to that."""

    worlds: int
    exercised: frozenset[tuple[State, State]]
    story: str | None


class Explorer:
    """Explores one setting: completely, or until a promise is broken (``sought``, where only one is of interest)."""

    def __init__(
        self,
        setting: Setting,
        sought: Promise | None = None,
        allowed: Mapping[tuple[State, State], int] = ALLOWED,
    ) -> None:
        self._setting = setting
        self._sought = sought
        self._engine = Engine(setting, allowed)
        self._watcher = Reconciler(self._engine)
        self._outside = Outside(self._engine)
        self._number: dict[World, int] = {}
        self._way: list[tuple[int, Move]] = []  # to each world: from which one, by what
        self._progress_to: defaultdict[int, list[int]] = defaultdict(list)
        self._at_rest: list[int] = []

    def run(self) -> Explored:
        """Everything that can happen."""
        self._add(-1, Move("a job is committed", Kind.PROGRESS, World()))
        story = next(self._told(), None)
        return Explored(len(self._way), frozenset(self._engine.exercised), story)

    def _told(self) -> Iterator[str]:
        number = 0
        while number < len(self._way):  # grows meanwhile
            for breach, last in self._visit(number):
                if self._sought in {None, breach[0]}:
                    yield self._tell(number, breach, last)
            number += 1
        if self._sought in {None, Promise.AN_END}:
            yield from self._stranded()

    def _visit(self, number: int) -> Iterator[tuple[Breach, Move | None]]:
        world = self._way[number][1].world
        for breach in promises.of_world(self._setting, world):
            yield breach, None
        moved = False
        try:
            for move in self._moves(world):
                for breach in promises.of_move(world, move):
                    yield breach, move
                after = self._add(number, move)
                if move.kind is Kind.PROGRESS and after != number:
                    self._progress_to[after].append(number)
                    moved = True
        except Violation as violation:
            yield violation.breach, None
        if not moved and world.job in FINAL:
            self._at_rest.append(number)
            for breach in promises.at_rest(self._setting, world):
                yield breach, None

    def _moves(self, world: World) -> Iterator[Move]:
        yield from self._engine.steps(world)
        yield from self._watcher.steps(world)
        yield from self._outside.steps(world)

    def _add(self, number: int, move: Move) -> int:
        """The number of the world that a move leads to: a new one, or one that is alike in all that matters."""
        known = self._number.get(move.world)
        if known is None:
            world = self._plain(move.world)
            first, second = world.workers
            key = world if first[:5] <= second[:5] else world._replace(workers=(second, first))
            known = self._number[move.world] = self._number.setdefault(key, len(self._way))
            if known == len(self._way):
                self._way.append((number, move._replace(world=world)))
        return known

    def _stranded(self) -> Iterator[str]:
        """The first world from which progress alone leads nowhere."""
        reaches = set(self._at_rest)
        waiting = deque(self._at_rest)
        while waiting:
            for number in self._progress_to[waiting.popleft()]:
                if number not in reaches:
                    reaches.add(number)
                    waiting.append(number)
        for number in range(len(self._way)):
            if number not in reaches:
                yield self._tell(number, (Promise.AN_END, "the job never comes to an end"), None)

    def _tell(self, number: int, breach: Breach, last: Move | None) -> str:
        moves = [] if last is None else [last]
        while number >= 0:
            number, move = self._way[number]
            moves.append(move)
        lines = [f"Broken: {breach[0]}.\nHere {breach[1]}, after this:"]
        shown = ""
        for count, move in enumerate(reversed(moves)):
            lines.append(f"{count:4}. {move.words}")
            if str(move.world) != shown:
                shown = str(move.world)
                lines.append(f"          {shown}")
        return "\n".join(lines)

    # What can make no difference any more is forgotten, so that fewer worlds tell the same ----------------------------

    def _plain(self, world: World) -> World:
        first, second = world.workers
        sending = {worker.submission for worker in world.workers if worker.step in SENDING}
        owned = {one.remote for one in world.ledger}
        ledger = [self._faded(one, number in sending, number in owned) for number, one in enumerate(world.ledger)]
        return world._replace(workers=(self._minded(world, first), self._minded(world, second)), ledger=tuple(ledger))

    def _minded(self, world: World, worker: Worker) -> Worker:
        """A worker whose next write cannot count, now or later, is as good as an idle one."""
        if worker.step is Step.IDLE or worker.step in SENDING:
            return worker
        if worker.step is Step.CHOSEN:
            mute = world.job is not State.QUEUED and self._setting.mutant is not Mutant.TWO_SUBMITTERS
        elif worker.finding is Finding.ACCEPTED:
            mute = world.ledger[worker.submission].remote is not None
        elif worker.finding in OUTCOMES:
            mute = world.ledger[worker.submission].state not in UNRESOLVED
        else:
            mute = not worker.holds and self._setting.mutant not in {Mutant.NO_FENCE, Mutant.NO_GUARD}
        return Worker() if mute else worker

    def _faded(self, one: Submission, sending: bool, owned: bool) -> Submission:
        """Without facts about a paid request that nobody asks for any more."""
        over = one.state not in UNRESOLVED and one.wire is Wire.NOTHING and not sending
        held = one.record is not Record.NONE
        changes: dict[str, object] = {}
        if over and one.clock is not Clock.SETTLED:
            changes["clock"] = Clock.SETTLED
        if not one.listed and (owned or (over and held and self._setting.list_keeps_its_word)):
            changes["listed"] = True
        if one.hint and one.remote is not None:
            changes["hint"] = False
        if one.lookups and not (one.state is SubmissionState.UNKNOWN or (one.watch is Watch.ON and one.remote is None)):
            changes["lookups"] = 0
        if held and one.record is not Record.RENDERING and not one.cancel_asked:
            changes["cancel_asked"] = True
        return one._replace(**changes) if changes else one  # type: ignore[arg-type]
