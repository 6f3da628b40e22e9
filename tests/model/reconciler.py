"""The watcher: purchases for which no job waits any more. Only the ledger changes, and a late video is kept.

A look and what is written after it are one step here: what it can find does not change between the two.
"""

from collections.abc import Iterator

from app.jobs.states import FINAL, ChargeCertainty, SubmissionState
from app.providers.base import Lookup
from tests.model.engine import Engine
from tests.model.world import Kind, Move, Record, Submission, Watch, World


class Reconciler:
    """Whichever worker does it: it holds nothing in between."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def steps(self, world: World) -> Iterator[Move]:
        """One look at one purchase."""
        for number, one in enumerate(world.ledger):
            if one.watch is not Watch.ON:
                continue
            name = f"submission {number + 1}"
            if one.remote is not None:
                yield from self._settle(world, number, one.remote, name)
            elif one.hint:
                after = self._engine.accepted(world, number, number)
                yield Move(f"the watcher reads what a callback named for {name}", Kind.PROGRESS, after)
            elif self._engine.setting.lookup is Lookup.LIST:
                yield from self._look_late(world, number, one, name)
            over = world.with_submission(number, watch=Watch.OVER)
            yield Move(f"{name} has been watched for long enough", Kind.PROGRESS, over)

    def _look_late(self, world: World, number: int, one: Submission, name: str) -> Iterator[Move]:
        found = self._engine.candidates(world, number)
        for remote in found:
            after = self._engine.accepted(world, number, remote)
            yield Move(f"the watcher finds the record of {name}", Kind.PROGRESS, after)
        if not found or not one.lookups:
            free = {"state": SubmissionState.ABSENT, "certainty": ChargeCertainty.NONE, "watch": Watch.NO}
            after = world.with_submission(number, **(free if one.lookups else {"lookups": 1}))
            yield Move(f"the watcher finds no record of {name}", Kind.FAULT if found else Kind.PROGRESS, after)

    def _settle(self, world: World, number: int, remote: int, name: str) -> Iterator[Move]:
        """The truth reaches the ledger, and a late video is kept. The state of the job stays as it is."""
        record = world.ledger[remote].record
        if record in {Record.RENDERING, Record.LOST}:
            return
        certainty = {Record.FREE: ChargeCertainty.NONE, Record.CANCELED: self._engine.in_doubt}
        facts = {"certainty": certainty.get(record, self._engine.charged)}
        wanted = record is Record.SUCCEEDED and not world.video
        ended = Watch.NO if world.job in FINAL or not wanted else Watch.ON  # the job may still come to nothing
        settled = world.with_submission(number, watch=ended, **facts)
        yield Move(f"the watcher reads the end of {name}: {record}", Kind.PROGRESS, settled)
        if wanted and world.job in FINAL:
            yield Move(f"the watcher keeps the late video of {name}", Kind.PROGRESS, settled._replace(video=True))
