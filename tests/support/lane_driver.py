"""A worker's lanes, worked by hand: one step after the other, exactly when a test says so, and time that jumps."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import failpoints
from app.claims import ClaimLost
from app.events.repository import Event
from app.failpoints import Failpoint
from app.ids import Prefix, decode
from app.infra.queue import Lane
from app.resources import Resources

#: Far more than any lane of a test holds.
PLENTY = 100
#: What a test waits for comes within a moment, or never.
PATIENCE_SECONDS = 120
#: So many rounds through the lanes end whatever ends at all.
ROUNDS = 50

_AGING = (
    "UPDATE schedule SET next_at = next_at - {0}, ready_at = ready_at - {0}",
    "UPDATE jobs SET created_at = created_at - {0}, deadline_at = deadline_at - {0}, started_at = started_at - {0}",
    "UPDATE submissions SET created_at = created_at - {0}, send_deadline = send_deadline - {0}",
    "UPDATE submissions SET missing_since = missing_since - {0} WHERE missing_since IS NOT NULL",
    "UPDATE watches SET next_at = next_at - {0}, until = until - {0}",
    "UPDATE connections SET closed_until = closed_until - {0}",
)

Step = Callable[[], Awaitable[object]]


def inner(public_id: str, prefix: Prefix = Prefix.JOB) -> UUID:
    """The id inside."""
    found = decode(prefix, public_id)
    assert found is not None
    return found


#: A test waits for a row that a worker holds; the API, whose database this may be, does not.
PATIENT = text("SET LOCAL lock_timeout = 0")


class LaneDriver:
    """Works the lanes of opened resources. What is overtaken is overtaken, any other error is the test's."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        steps = resources.steps
        self._steps: dict[Lane, Any] = {
            Lane.PREPARE: steps.preparer,
            Lane.SUBMIT: steps.submitter,
            Lane.RESOLVE: steps.resolver,
            Lane.POLL: steps.poller,
            Lane.STORE: steps.storer,
            Lane.RECONCILE: steps.reconciler,
        }

    async def claim(self, lane: Lane, limit: int = PLENTY) -> list[Step]:
        """Take what is due in a lane; each step is to be called."""
        return [self._step(lane, item) async for item in self._steps[lane].claim(limit)]

    def _step(self, lane: Lane, item: Any) -> Step:
        async def step() -> None:
            with suppress(ClaimLost):
                await self._steps[lane].advance(item)

        return step

    async def work(self, *lanes: Lane) -> int:
        """One round through some lanes; how many steps that was."""
        count = 0
        for lane in lanes or tuple(self._steps):
            steps = await self.claim(lane)
            for step in steps:
                await step()
            count += len(steps)
        return count

    async def settle(self, *lanes: Lane) -> None:
        """Round after round, until nothing in these lanes is due any more."""
        for _ in range(ROUNDS):
            if not await self.work(*lanes):
                return
        raise AssertionError("the lanes are never done")

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.resources.database.begin() as conn:
            await conn.execute(PATIENT)
            await conn.execute(text(statement), values)

    async def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        async with self.resources.database.read() as conn:
            return [tuple(row) for row in await conn.execute(text(statement), values)]

    async def value(self, statement: str, **values: Any) -> Any:
        ((value,),) = await self.rows(statement, **values)
        return value

    async def pass_time(self, seconds: float) -> None:
        """Everything that the database knows a time of becomes so much older."""
        while True:
            try:
                async with self.resources.database.begin() as conn:
                    await conn.execute(PATIENT)
                    for statement in _AGING:
                        await conn.execute(text(statement.format(f"make_interval(secs => {seconds})")))
            except DBAPIError as error:
                # The tables of all jobs at once, beside workers that lock one job after the other
                if "deadlock detected" not in str(error):
                    raise
            else:
                return

    async def event(self, job_id: UUID, event_type: str, saying: str = "") -> Event:
        """The job's first event of that type with those words in it, as soon as there is one."""
        account = await self.value("SELECT account_id FROM jobs WHERE id = :id", id=job_id)
        events: Any = self.resources.events.follow(account, job_id, 0)
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(events):
            async for event in events:
                if event.type == event_type and saying in str(event.data):
                    found: Event = event
                    return found
        raise AssertionError(f"{job_id} never had {event_type} {saying}")


class Pause:
    """Stops the first step that passes a checkpoint, and lets it go on, or ends it, when the test says so."""

    def __init__(self, place: Failpoint) -> None:
        self._place = place
        self._there: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()
        self._go_on = asyncio.Event()

    async def __aenter__(self) -> "Pause":
        failpoints.visit(self._visit)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()
        failpoints.visit(None)

    async def _visit(self, place: Failpoint) -> None:
        if place is self._place and not self._there.done():
            step = asyncio.current_task()
            assert step is not None
            self._there.set_result(step)
            await self._go_on.wait()

    async def reached(self) -> None:
        """Return once a step stands there."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self._there)

    def resume(self) -> None:
        self._go_on.set()

    async def kill(self) -> None:
        """End the step where it stands, as the death of its process would."""
        step = await asyncio.shield(self._there)
        step.cancel()
        await asyncio.wait((step,))
