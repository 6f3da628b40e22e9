"""Admission: who may buy next, on which connection. Exact across workers, fair between accounts.

One connection at a time, under the lock of its row: count the free slots, choose the fairest jobs, and commit their
intents at once, before a byte leaves. Over a limit jobs wait in their line; nothing wakes them one by
one, and nobody looks at them before there is room.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode, new_id
from app.infra.db import is_outage
from app.jobs import failover
from app.jobs.db import connections, repository, schedule, submissions
from app.jobs.engine.context import Workbench, persist
from app.jobs.engine.submit_results import Outcomes
from app.jobs.records import Job
from app.jobs.states import State
from app.providers.transport import Call

MINUTE_SECONDS = 60
#: A job that cannot be put into its provider's words is looked at again after so long: a fault of ours, not of the job.
UNWRITABLE_SECONDS = 60
UNWRITABLE = "The gateway could not put the order into its provider's words. It is tried again; its operator is told."
#: Whoever is next may be in somebody else's hands just now: the ones behind must not wait for that.
SPARE = 8
#: A transaction takes in no more jobs after this share of their time-out: what is committed must be sent in time.
MOST_SHARE = 0.25
#: Seconds until a connection whose slots another worker hands out is looked at again.
BUSY_SECONDS = 0.1
DIVERT_BATCH = 100
DIVERT_PAUSE_SECONDS = 10
NOT_REACHED = "The provider could not be reached; nothing was sent. Trying again until the job's deadline."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Purchase:
    """One paid request, ready to be sent. ``deadline`` is event-loop time.

    ``failures`` is how often the connection had failed in a row before: if it had, a success is news.
    """

    submission_id: UUID
    job_id: UUID
    connection: str
    call: Call
    deadline: float
    failures: int


class Admission:
    """Turns waiting jobs into purchases."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._outcomes = Outcomes(bench)
        self._busy = False

    async def admit(self, limit: int) -> AsyncIterator[Purchase]:
        """At most ``limit`` purchases. Their intents are committed: each must be sent now, or becomes a doubt.

        Those of one connection come right after its own commit: what is slow about the next one cannot delay them.
        """
        self._busy = False
        if limit <= 0:
            return
        async with self._bench.database.read() as connection:
            lines = await schedule.lines(connection)
            closed = await connections.closed(connection) if lines else set()
            broken = await connections.closed(connection, self._bench.settings.break_after) if closed else set()
        # Before anything is committed: nothing that goes wrong here may keep a purchase from being sent.
        for line in list(lines):
            try:
                lines |= await self._divert(line, broken)
            except Exception:
                log.exception("jobs not diverted", line=line)
        for upstream in self._bench.registry.connections:
            models = lines.intersection(self._bench.registry.models_of(upstream))
            if not models or limit <= 0 or upstream in closed:
                continue
            try:
                purchases = await self._admit(upstream, sorted(models), limit)
            except Exception:
                log.exception("admission failed", connection=upstream)
                purchases = None
            if purchases is None:
                # Trouble of ours: no reason to send these jobs where they would go only after this connection.
                lines = lines.difference(models)
                continue
            limit -= len(purchases)
            for purchase in purchases:
                yield purchase

    async def next_due(self) -> float | None:
        """Seconds until there may be somebody to let in without a ring."""
        if self._busy:
            return BUSY_SECONDS
        async with self._bench.database.read() as connection:
            ready = await schedule.next_ready(connection)
            opening = await connections.next_opening(connection, list(self._bench.registry.connections))
        return min((seconds for seconds in (ready, opening) if seconds is not None), default=None)

    async def _admit(self, upstream: str, models: Sequence[str], room: int) -> list[Purchase] | None:
        """The purchases that a connection has room for; None while another transaction holds it."""
        intended: list[tuple[UUID, UUID]] = []
        enough = asyncio.get_running_loop().time() + MOST_SHARE * self._bench.settings.submit_timeout
        try:
            async with self._bench.database.begin() as connection:
                standing = await connections.lock(connection, upstream)
                if standing is None:
                    self._busy = True
                    return None
                free = min(room, await self._free(connection, standing))
                if free <= 0:
                    return []
                await checkpoint(Checkpoint.SUBMIT_CLAIMED)
                turns = await schedule.fairest(connection, upstream, models, free + SPARE)
                purchases = []
                for job, model in (await repository.lock_waiting(connection, upstream, turns))[:free]:
                    submission_id = new_id()
                    intended.append((job.id, submission_id))
                    purchase = await self._intend(connection, job, model, submission_id, standing)
                    purchases += [purchase] if purchase else []
                    if asyncio.get_running_loop().time() >= enough:
                        break
                if purchases and standing.failures >= self._bench.settings.break_after:
                    # Closed until now: this one finds out whether it works again, and the others wait for its outcome.
                    await connections.close(connection, upstream, self._lease)
                await checkpoint(Checkpoint.SUBMIT_WRITTEN)
        except Exception as error:
            for job_id, submission_id in intended:
                await persist(partial(self._withdraw, job_id, submission_id))
            if intended and not is_outage(error):
                # What was refused is about one job: the last. It must not keep the others waiting.
                await self._set_back(intended[-1][0])
            raise
        await checkpoint(Checkpoint.SUBMIT_COMMITTED)
        return purchases

    async def _free(self, connection: AsyncConnection, standing: connections.Standing) -> int:
        """How many jobs a connection takes now."""
        if standing.closed_for > 0:
            return 0
        configured = self._bench.registry.connection(standing.name)
        free = configured.max_concurrent - await submissions.slots_taken(connection, standing.name)
        if configured.requests_per_minute is not None and free > 0:
            sent = await submissions.sent_within(connection, standing.name, MINUTE_SECONDS)
            free = min(free, configured.requests_per_minute - sent)
        return min(free, 1) if standing.failures >= self._bench.settings.break_after else free

    async def _intend(
        self,
        connection: AsyncConnection,
        job: Job,
        model: str,
        submission_id: UUID,
        standing: connections.Standing,
    ) -> Purchase | None:
        """Write the intent to buy; None when the order cannot be written in the provider's words."""
        upstream = standing.name
        choice = job.choice(model)
        route = self._bench.registry.route(model, upstream)
        within = self._bench.settings.submit_timeout
        # Before the database's own deadline begins to count: ours must not be the later one.
        deadline = asyncio.get_running_loop().time() + within
        try:
            provider = self._bench.registry.provider(upstream)
            order = choice.ordered.order(route.upstream_model)
            call = self._bench.paid_call(provider, upstream, order, submission_id)
        except Exception:
            log.exception("order not written", job=encode(Prefix.JOB, job.id), connection=upstream)
            await schedule.set_back(connection, job.id, UNWRITABLE_SECONDS)
            await self._bench.recorder.notice(connection, job.id, UNWRITABLE)
            return None
        await submissions.write_intent(
            connection,
            submissions.Intent(
                id=submission_id,
                job_id=job.id,
                account_id=job.account_id,
                connection=upstream,
                model=model,
                upstream_model=route.upstream_model,
                estimated_cost=choice.estimated_cost,
                body_hash=hashlib.sha256(call.body).digest(),
                order_hash=order.hash,
                send_within=within,
            ),
        )
        await self._bench.recorder.move(
            connection,
            job.id,
            State.SUBMITTING,
            from_=(State.QUEUED,),
            fence=None,
            next_in=self._lease,
            model_used=model,
        )
        return Purchase(submission_id, job.id, upstream, call, deadline, standing.failures)

    @property
    def _lease(self) -> float:
        return self._bench.settings.submit_timeout + self._bench.settings.submit_margin

    async def _withdraw(self, job_id: UUID, submission_id: UUID) -> None:
        """Cut at the commit: the intent may be there, and we know that nothing was sent."""
        with suppress(Overtaken):
            await self._outcomes.not_sent_in_time(job_id, submission_id, "the intent could not be committed")

    async def _set_back(self, job_id: UUID) -> None:
        async with self._bench.database.begin() as connection:
            await schedule.set_back(connection, job_id, UNWRITABLE_SECONDS)

    async def _divert(self, line: str, broken: set[str]) -> set[str]:
        """Where none of the ways that jobs want is open, let them wait for others that they may take instead.

        Returns the lines that they are in now.
        """
        ways = self._bench.registry.connections_of(line)
        if ways and broken.isdisjoint(ways):
            return set()
        async with self._bench.database.read() as connection:
            wanted = [name for name in ways if name not in broken]
            job_ids = await schedule.stranded(connection, line, wanted, DIVERT_BATCH)
        turns = [await self._turn_elsewhere(job_id, line, broken) for job_id in job_ids]
        return {turn.model for turn in turns if turn is not None}

    async def _turn_elsewhere(self, job_id: UUID, line: str, broken: set[str]) -> failover.Turn | None:
        async with self._bench.database.begin() as connection:
            job = await repository.lock(connection, job_id, skip_locked=True)
            if job is None:
                return None
            past = await submissions.past_of(connection, job_id)
            turn = failover.next_turn(job, past, self._bench.registry.connections_of, broken)
            if turn is None or not await schedule.divert(connection, job, line, turn):
                await schedule.set_back(connection, job_id, DIVERT_PAUSE_SECONDS)
                return None
        log.info("job waits for another way", job=encode(Prefix.JOB, job_id), model=turn.model, avoid=turn.avoid)
        return turn
