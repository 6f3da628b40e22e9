"""Everything around the engine: the network, the provider, time, the customer, and what kills a worker."""

from collections.abc import Iterator

from app.jobs.states import FINAL, LIVE_SUBMISSIONS, UNSUBMITTED, State
from app.providers.base import Lookup
from tests.model.engine import Engine
from tests.model.promises import Mutant
from tests.model.world import Clock, Finding, Kind, Move, Record, Step, Watch, Wire, Worker, World

REPLIES = {Wire.ACCEPTED: Finding.ACCEPTED, Wire.REFUSED: Finding.REFUSED}


class Outside:
    """What happens to us. A worker that sleeps needs no step: everybody else may go on without it at any time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._setting = engine.setting

    def steps(self, world: World) -> Iterator[Move]:
        """Everything that may happen next."""
        for number, worker in enumerate(world.workers):
            if worker.step is Step.READY:
                yield from self._send(world, number, worker)
            elif worker.step is Step.WAITING:
                yield from self._wait(world, number, worker)
            if worker.step is not Step.IDLE:
                yield Move(f"worker {number + 1} dies", Kind.FAULT, _hang_up(world, number, Worker()))
        for number in range(len(world.ledger)):
            yield from self._provide(world, number)
            yield from self._pass_time(world, number)
            if self._setting.callbacks and world.ledger[number].record is not Record.NONE:
                yield self._call_back(world, number)
        # The flags are looked at in these states only: in others it makes no difference when they come up.
        if not world.late and world.job in UNSUBMITTED | {State.RUNNING}:
            yield Move("the job's deadline passes", Kind.PROGRESS, world._replace(late=True))
        if self._setting.cancels and not world.cancel and world.job not in FINAL | {State.STORING}:
            yield Move("the customer cancels the job", Kind.LUCK, self._cancel(world))

    # The network -----------------------------------------------------------------------------------------------------

    def _send(self, world: World, number: int, worker: Worker) -> Iterator[Move]:
        in_time = world.ledger[worker.submission].clock is Clock.OPEN
        if in_time or self._engine.broken(Mutant.NO_SEND_DEADLINE):
            sent = world.with_submission(worker.submission, wire=Wire.REQUEST)
            after = sent.with_worker(number, worker._replace(step=Step.WAITING))
            yield Move(f"worker {number + 1} sends the paid request", Kind.PROGRESS, after)
        unsent = world.with_worker(number, worker._replace(step=Step.KNOWS, finding=Finding.UNSENT))
        why = "gets no connection" if in_time else "may not send any more"
        yield Move(f"worker {number + 1} {why}", Kind.FAULT if in_time else Kind.PROGRESS, unsent)

    def _wait(self, world: World, number: int, worker: Worker) -> Iterator[Move]:
        paid = world.ledger[worker.submission]
        if paid.wire in REPLIES:
            remote = worker.submission if paid.wire is Wire.ACCEPTED else None
            heard = worker._replace(step=Step.KNOWS, finding=REPLIES[paid.wire], remote=remote)
            after = world.with_submission(worker.submission, wire=Wire.NOTHING).with_worker(number, heard)
            yield Move(f"worker {number + 1} gets the reply: {paid.wire}", Kind.PROGRESS, after)
        cut_off = _hang_up(world, number, worker._replace(step=Step.KNOWS, finding=Finding.UNKNOWN))
        if paid.clock is Clock.OPEN:
            on_its_way = "; the request is still on its way" if paid.wire is Wire.REQUEST else ""
            yield Move(f"worker {number + 1} is cut off{on_its_way}", Kind.FAULT, cut_off)
        else:
            yield Move(f"worker {number + 1} waits no longer", Kind.PROGRESS, cut_off)

    # The provider ----------------------------------------------------------------------------------------------------

    def _provide(self, world: World, number: int) -> Iterator[Move]:
        paid, name = world.ledger[number], f"request {number + 1}"
        if paid.wire is Wire.REQUEST:
            heard = any(worker.step is Step.WAITING and worker.submission == number for worker in world.workers)
            listed = paid.clock is Clock.SETTLED and self._setting.list_keeps_its_word
            accepted = {"record": Record.RENDERING, "listed": listed, "wire": Wire.ACCEPTED if heard else Wire.NOTHING}
            yield Move(f"the provider accepts {name}", Kind.PROGRESS, world.with_submission(number, **accepted))
            refused = world.with_submission(number, wire=Wire.REFUSED if heard else Wire.NOTHING)
            yield Move(f"the provider refuses {name}", Kind.PROGRESS, refused)
        if paid.record is Record.NONE:
            return
        if not paid.listed and self._setting.lookup is Lookup.LIST and paid.record is not Record.LOST:
            shown = world.with_submission(number, listed=True)
            yield Move(f"the record of {name} shows up in the list", Kind.PROGRESS, shown)
        under_way = paid.record in {Record.RENDERING, Record.LOST}
        if self._setting.forgets and paid.record is Record.RENDERING:
            lost = world.with_submission(number, record=Record.LOST, listed=False)
            yield Move(f"the provider loses the render of {name}", Kind.LUCK, lost)
        for end in self._setting.ends if under_way else ():
            if end is not Record.CANCELED or paid.cancel_asked:
                yield Move(f"{name} comes to {end}", Kind.PROGRESS, world.with_submission(number, record=end))

    def _call_back(self, world: World, number: int) -> Move:
        """A hint, with the token of the submission: it is noted, and whoever looks after that one looks at once."""
        one, after = world.ledger[number], world
        if one.remote is None:
            deaf = self._engine.broken(Mutant.ABSENT_IS_DEAF) or one.state in LIVE_SUBMISSIONS
            after = world.with_submission(number, hint=True, watch=one.watch if deaf else Watch.ON)
        if world.job in {State.RUNNING, State.SUBMIT_UNKNOWN}:
            after = after.unclaimed()
        return Move(f"a callback comes for submission {number + 1}", Kind.LUCK, after)

    # Time, and the customer ------------------------------------------------------------------------------------------

    def _pass_time(self, world: World, number: int) -> Iterator[Move]:
        paid = world.ledger[number]
        if paid.clock is Clock.OPEN:
            lost = paid.wire is Wire.REQUEST and not self._engine.broken(Mutant.NO_SEND_DEADLINE)
            after = world.with_submission(number, clock=Clock.CLOSED, wire=Wire.NOTHING if lost else paid.wire)
            words = "; what is on its way never comes" if lost else ""
            yield Move(f"the send deadline of request {number + 1} passes{words}", Kind.PROGRESS, after)
        elif paid.clock is Clock.CLOSED:
            kept = paid.record is not Record.NONE and self._setting.list_keeps_its_word
            after = world.with_submission(number, clock=Clock.SETTLED, listed=paid.listed or kept)
            yield Move(f"the visibility delay of request {number + 1} is over", Kind.PROGRESS, after)

    def _cancel(self, world: World) -> World:
        if world.job in UNSUBMITTED:
            return self._engine.move(world, State.CANCELED)
        asked = world._replace(cancel=True)
        return asked if world.job is State.SUBMITTING else asked.unclaimed()


def _hang_up(world: World, number: int, worker: Worker) -> World:
    """A worker that listens no longer: a reply reaches nobody, and a request on its way goes on."""
    was = world.workers[number]
    if was.step is Step.WAITING and world.ledger[was.submission].wire in REPLIES:
        world = world.with_submission(was.submission, wire=Wire.NOTHING)
    return world.with_worker(number, worker)
