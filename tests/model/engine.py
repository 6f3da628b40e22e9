"""The engine of docs/architecture.md, "States and transitions", small enough to try all it can do, in every order.

Every change of the job's state goes through :meth:`Engine.move`, which reads the real table in `app.jobs.states`. A
*decision* counts only while the worker's claim lasts and the job stands where the worker saw it. *Evidence* of what
became of a paid request counts whenever it comes. A step is one transaction or one call; between two a worker may stop.
"""

from collections.abc import Iterator, Mapping

from app.jobs.states import ALLOWED, FINAL, LANES, ChargeCertainty, State, SubmissionState
from app.providers.base import BillsOn, Lookup
from tests.model.promises import Mutant, Promise, Setting, Violation
from tests.model.world import Clock, Finding, Kind, Move, Record, Step, Submission, Watch, Worker, World

PURCHASES = 2  # the most for one job
LOOKUPS_NEEDED = 2
BUYING = (State.SUBMITTING, State.SUBMIT_UNKNOWN)
UNRESOLVED = (SubmissionState.SENDING, SubmissionState.UNKNOWN)

#: Findings that prove that nothing was bought, and what they make of the submission.
PROOFS = {
    Finding.REFUSED: SubmissionState.REJECTED,
    Finding.UNSENT: SubmissionState.ABSENT,
    Finding.ABSENT: SubmissionState.ABSENT,
}

#: What a look at a record tells.
VERDICTS = {
    Record.RENDERING: Finding.PENDING,
    Record.SUCCEEDED: Finding.SUCCEEDED,
    Record.FREE: Finding.FREE,
    Record.BILLED: Finding.BILLED,
    Record.CANCELED: Finding.CANCELED,
    Record.LOST: Finding.LOST,
}


class Engine:
    """Our side. ``exercised`` are the moves of the table that it has made."""

    def __init__(self, setting: Setting, allowed: Mapping[tuple[State, State], int] = ALLOWED) -> None:
        self.setting = setting
        self.exercised: set[tuple[State, State]] = set()
        self._allowed = allowed
        none, possible, certain = ChargeCertainty.NONE, ChargeCertainty.POSSIBLE, ChargeCertainty.CERTAIN
        # On acceptance; accepted with the end not known; and at a good end.
        self._on_acceptance, self.in_doubt, self.charged = {
            BillsOn.ACCEPTANCE: (certain, certain, certain),
            BillsOn.SUCCESS: (none, possible, certain),
            BillsOn.NEVER: (none, none, none),
        }[setting.bills_on]

    def broken(self, *mutants: Mutant) -> bool:
        return self.setting.mutant in mutants

    def move(self, world: World, to: State) -> World:
        """The only way from state to state. It ends every claim."""
        if world.job in FINAL:
            raise Violation(Promise.FINAL, f"a job that is {world.job} becomes {to}")
        if (world.job, to) not in self._allowed:
            raise Violation(Promise.TABLE, f"a move that is not in the table: {world.job} → {to}")
        self.exercised.add((world.job, to))
        world = world.unclaimed()
        if to in FINAL:
            return world._replace(job=to, lane=None, cancel=False, late=False)
        return world._replace(job=to, lane=LANES[to])

    def steps(self, world: World) -> Iterator[Move]:
        """Everything that our side may do next."""
        for number, worker in enumerate(world.workers):
            if worker.step is Step.IDLE:
                yield from self._choose(world, number)
                yield from self._claim(world, number)
            elif worker.step is Step.CHOSEN:
                yield self._intend(world, number)
            elif worker.step is Step.CLAIMED:
                yield from self._advance(world, number)
            elif worker.step is Step.KNOWS:
                yield from self._write_down(world, number)

    # The submitter ---------------------------------------------------------------------------------------------------

    def _choose(self, world: World, number: int) -> Iterator[Move]:
        if world.job is State.QUEUED and not world.late and len(world.ledger) < PURCHASES:
            yield _step(number, "chooses the job", world.with_worker(number, Worker(Step.CHOSEN)))

    def _intend(self, world: World, number: int) -> Move:
        """Under the job's row lock: look whether it still waits, and commit the intent before a byte leaves."""
        waits = world.job is State.QUEUED and not world.late and world.live() is None
        if not waits and not (self.broken(Mutant.TWO_SUBMITTERS) and world.job is State.SUBMITTING):
            return _step(number, "finds the job taken", world.with_worker(number, Worker()))
        after = self.move(world, State.SUBMITTING)._replace(held=True) if waits else world
        sender = Worker(Step.READY, waits, State.SUBMITTING, submission=len(world.ledger))
        after = after._replace(ledger=(*world.ledger, Submission())).with_worker(number, sender)
        return _step(number, "commits its intent to buy", after)

    # Claims: all other lanes -----------------------------------------------------------------------------------------

    def _claim(self, world: World, number: int) -> Iterator[Move]:
        """Take the job: it is due, or a lease ran out, which the sweep sees."""
        live = world.live()
        if world.held and self.broken(Mutant.NO_SWEEPER):
            return
        if world.lane is None or not self._due(world, None if live is None else world.ledger[live]):
            return
        asleep = any(worker.holds for worker in world.workers)
        why = " after a lease ran out" + (" over a worker that sleeps" if asleep else "") if world.held else ""
        claim = Worker(Step.CLAIMED, holds=True, saw=world.job, submission=live or 0)
        after = world.unclaimed()._replace(held=True).with_worker(number, claim)
        kind = Kind.FAULT if asleep else Kind.PROGRESS
        yield _step(number, f"claims the job in the {world.lane} lane{why}", after, kind)

    def _due(self, world: World, live: Submission | None) -> bool:
        if world.job is State.QUEUED:
            return world.late
        if live is None or world.job not in BUYING:
            return True
        if world.job is State.SUBMITTING:
            return live.clock is not Clock.OPEN  # the lease outlasts the send deadline
        return live.clock is Clock.SETTLED or live.hint or self.broken(Mutant.EARLY_ABSENCE)

    def decides(self, world: World, worker: Worker) -> bool:
        """Whether a decision of this worker may be written."""
        fenced = worker.holds or self.broken(Mutant.NO_FENCE)
        return (fenced and world.job is worker.saw) or self.broken(Mutant.NO_GUARD)

    def _hand_back(self, world: World, number: int) -> World:
        held = world.held and not world.workers[number].holds
        return world._replace(held=held).with_worker(number, Worker())

    def _advance(self, world: World, number: int) -> Iterator[Move]:
        worker, rested = world.workers[number], world.with_worker(number, Worker())
        about = worker.submission
        if not self.decides(world, worker):
            yield _step(number, "finds its claim gone", rested)
        elif worker.saw is State.PREPARING:
            yield from self._prepare(world, rested, number)
        elif worker.saw is State.QUEUED:
            yield _step(number, "ends the job: it waited too long", self.move(rested, State.FAILED))
        elif worker.saw is State.SUBMITTING:
            requeues = self.broken(Mutant.REQUEUE_ON_LEASE_EXPIRY)
            afters = self._nothing_bought(rested, about, SubmissionState.ABSENT) if requeues else ()
            for after in afters or (self._unknown(rested, about),):
                yield _step(number, f"finds the sender gone, and the job is {after.job}", after)
        elif worker.saw is State.SUBMIT_UNKNOWN:
            yield from self._look(world, number)
        elif worker.saw is State.RUNNING:
            yield _learn(world, number, VERDICTS[world.ledger[_remote(world, about)].record])
        else:
            yield _learn(world, number, Finding.STORED)
            yield _learn(world, number, Finding.UNAVAILABLE)

    def _prepare(self, world: World, rested: World, number: int) -> Iterator[Move]:
        """Everything that it does before it writes may be done again: nothing is bought."""
        if world.late:
            yield _step(number, "ends the job: its inputs took too long", self.move(rested, State.FAILED))
            return
        yield _step(number, "has prepared the inputs", self.move(rested, State.QUEUED))
        yield _step(number, "finds that an input is unusable", self.move(rested, State.FAILED), Kind.LUCK)
        yield _step(number, "cannot fetch an input just now", self._hand_back(world, number), Kind.FAULT)

    # The resolver ----------------------------------------------------------------------------------------------------

    def _look(self, world: World, number: int) -> Iterator[Move]:
        """One look for a lost purchase: where a callback pointed, then in the list."""
        sought = world.workers[number].submission
        lost = world.ledger[sought]
        hinted = lost.hint and world.owner(sought) is None
        if hinted:
            yield _learn(world, number, Finding.ACCEPTED, remote=sought)
        if lost.clock is not Clock.SETTLED and not self.broken(Mutant.EARLY_ABSENCE, Mutant.HASTY_HINT):
            yield _step(number, "cannot read it just now", self._hand_back(world, number), Kind.FAULT)
        elif self.setting.lookup is Lookup.NONE:
            yield _learn(world, number, Finding.INCONCLUSIVE, Kind.FAULT if hinted else Kind.PROGRESS)
        else:
            yield from self._look_in_list(world, number, sought, Kind.FAULT if hinted else Kind.PROGRESS)

    def _look_in_list(self, world: World, number: int, sought: int, kind: Kind) -> Iterator[Move]:
        """A list may be behind once, but not twice with the pause between two looks."""
        looks = world.ledger[sought].lookups + 1
        missed = Finding.ABSENT if looks == LOOKUPS_NEEDED or self.broken(Mutant.SINGLE_LOOKUP) else Finding.MISSED
        found = self.candidates(world, sought)
        for remote in found:
            yield _learn(world, number, Finding.ACCEPTED, kind, remote)
        if not found or looks == 1:
            yield _learn(world, number, missed, Kind.FAULT if found else kind)
        yield _learn(world, number, Finding.INCONCLUSIVE, Kind.FAULT)

    def candidates(self, world: World, sought: int) -> list[int]:
        """Listed records that nobody has and that may be the one: a list that is late also misdates."""
        first = sought if self.setting.list_keeps_its_word else 0
        return [one for one in range(first, sought + 1) if world.ledger[one].listed and world.owner(one) is None]

    # Evidence: what became of a paid request -------------------------------------------------------------------------

    def accepted(self, world: World, bought: int, remote: int) -> World:
        """The provider has it: whoever says so, and however late."""
        if world.ledger[bought].remote is not None:
            return world
        if world.owner(remote) is not None and not self.broken(Mutant.NO_REMOTE_INDEX):
            return self._unknown(world, bought)  # an equal order took that record; the true one is still to be found
        live = world.live()
        if (world.job in BUYING and live == bought) or (world.job is State.QUEUED and live is None):
            facts = {"state": SubmissionState.ACCEPTED, "certainty": self._on_acceptance, "watch": Watch.NO}
            return self.move(world.with_submission(bought, remote=remote, **facts), State.RUNNING)
        certainty = self._on_acceptance if self.broken(Mutant.LATE_IS_FREE) else self.in_doubt
        facts = {"state": SubmissionState.ABANDONED, "certainty": certainty, "watch": Watch.ON}
        return world.with_submission(bought, remote=remote, **facts)

    def _still_buying(self, world: World, bought: int) -> bool:
        return world.job in BUYING and world.ledger[bought].state in UNRESOLVED

    def _unknown(self, world: World, bought: int) -> World:
        if world.job is not State.SUBMITTING or world.ledger[bought].state is not SubmissionState.SENDING:
            return world
        return self.move(world.with_submission(bought, state=SubmissionState.UNKNOWN), State.SUBMIT_UNKNOWN)

    def _nothing_bought(self, world: World, bought: int, state: SubmissionState) -> Iterator[World]:
        called_back = world.ledger[bought].hint and not self.broken(Mutant.ABSENT_IS_DEAF, Mutant.HASTY_HINT)
        if called_back or not self._still_buying(world, bought):
            yield world  # there is evidence, or it is yet to be read
        else:
            yield from self._go_on(world.with_submission(bought, state=state, certainty=ChargeCertainty.NONE))

    def _unprovable(self, world: World, bought: int) -> World:
        if not self._still_buying(world, bought):
            return world
        doubtful = world.with_submission(bought, state=SubmissionState.ABANDONED, watch=Watch.ON, lookups=0)
        return self.move(doubtful, State.FAILED)

    def _go_on(self, world: World) -> Iterator[World]:
        """After a "no": the customer's cancel, the next way to make the video, or the end where no way is left."""
        if world.cancel:
            yield self.move(self.move(world, State.QUEUED), State.CANCELED)
            return
        yield self.move(world, State.FAILED)
        free = all(one.certainty is ChargeCertainty.NONE for one in world.ledger)
        at_any_cost = self.broken(Mutant.FAILOVER_AT_ANY_COST, Mutant.LOST_AT_ANY_COST)
        may_buy = len(world.ledger) < PURCHASES and (free or at_any_cost)
        if may_buy:
            yield self.move(world, State.QUEUED)

    # Writing down what a worker knows --------------------------------------------------------------------------------

    def _write_down(self, world: World, number: int) -> Iterator[Move]:
        worker, rested = world.workers[number], world.with_worker(number, Worker())
        for after in self._outcome(world, rested, number, worker):
            became = f", and the job is {after.job}" if after.job is not world.job else ""
            yield _step(number, f"goes to write down: {worker.finding}{became}", after)

    def _outcome(self, world: World, rested: World, number: int, worker: Worker) -> Iterator[World]:
        about, finding = worker.submission, worker.finding
        if finding is Finding.ACCEPTED:
            assert worker.remote is not None
            thrown_away = self.broken(Mutant.EVIDENCE_NEEDS_FENCE) and not worker.holds
            yield rested if thrown_away else self.accepted(rested, about, worker.remote)
        elif finding in PROOFS or (finding is Finding.UNKNOWN and self.broken(Mutant.RETRY_ON_TIMEOUT)):
            yield from self._nothing_bought(rested, about, PROOFS.get(finding, SubmissionState.ABSENT))
        elif finding is Finding.UNKNOWN:
            yield self._unknown(rested, about)
        elif finding is Finding.INCONCLUSIVE:
            yield self._unprovable(rested, about)  # it was looked for long enough
            if (self.setting.lookup is Lookup.LIST or self.setting.callbacks) and self.decides(world, worker):
                yield self._hand_back(world, number).with_submission(about, lookups=0)
        elif not self.decides(world, worker):
            yield rested
        elif finding is Finding.MISSED:
            yield self._hand_back(world, number).with_submission(about, lookups=1)
        elif finding is Finding.PENDING:
            yield from self._pending(world, rested, number, about)
        else:
            yield from self._ended(rested, about, finding)

    # The poller and the storer ---------------------------------------------------------------------------------------

    def _ended(self, rested: World, about: int, finding: Finding) -> Iterator[World]:
        done = SubmissionState.DONE
        match finding:
            case Finding.SUCCEEDED:
                yield self.move(rested.with_submission(about, certainty=self.charged), State.STORING)
            case Finding.CANCELED:
                ended = rested.with_submission(about, state=done, certainty=self.in_doubt)
                yield self.move(ended, State.CANCELED if rested.cancel else State.FAILED)
            case Finding.FREE | Finding.BILLED:
                certainty = ChargeCertainty.NONE if finding is Finding.FREE else ChargeCertainty.CERTAIN
                yield from self._go_on(rested.with_submission(about, state=done, certainty=certainty))
            case Finding.LOST:
                facts = {"state": SubmissionState.ABANDONED, "certainty": self.in_doubt, "watch": Watch.ON}
                abandoned = rested.with_submission(about, **facts)
                free = self.setting.bills_on is BillsOn.NEVER or self.broken(Mutant.LOST_AT_ANY_COST)
                yield from self._go_on(abandoned) if free else (self.move(abandoned, State.FAILED),)
            case Finding.UNAVAILABLE if self.setting.bills_on is BillsOn.NEVER:
                facts = {"state": SubmissionState.ABANDONED, "watch": Watch.ON}
                yield from self._go_on(rested.with_submission(about, **facts))
            case _:
                video = finding is Finding.STORED
                ended = rested._replace(video=video).with_submission(about, state=done)
                blind = self.broken(Mutant.SUCCEEDED_UNSTORED)
                yield self.move(ended, State.SUCCEEDED if video or blind else State.FAILED)

    def _pending(self, world: World, rested: World, number: int, about: int) -> Iterator[World]:
        remote = _remote(world, about)
        if (world.late or world.cancel) and not world.ledger[remote].cancel_asked:
            yield world.with_submission(remote, cancel_asked=True)  # one call, after which the worker may die
        elif world.late:
            facts = {"certainty": self.in_doubt, "watch": Watch.ON}
            facts = {} if self.broken(Mutant.TIMEOUT_FORGETS) else facts
            ended = rested.with_submission(about, state=SubmissionState.ABANDONED, **facts)
            yield self.move(ended, State.FAILED)
        else:
            yield self._hand_back(world, number)


def _remote(world: World, number: int) -> int:
    remote = world.ledger[number].remote
    assert remote is not None
    return remote


def _step(number: int, words: str, after: World, kind: Kind = Kind.PROGRESS) -> Move:
    return Move(f"worker {number + 1} {words}", kind, after)


def _learn(world: World, number: int, finding: Finding, kind: Kind = Kind.PROGRESS, remote: int | None = None) -> Move:
    knows = world.workers[number]._replace(step=Step.KNOWS, finding=finding, remote=remote)
    return _step(number, f"learns: {finding}", world.with_worker(number, knows), kind)
