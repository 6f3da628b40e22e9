"""Admission: which jobs are submitted next, on which connection. Exact across workers, fair between accounts.

One connection at a time, under its row lock: count the free slots, choose the fairest jobs, and commit their intents
together, before a byte leaves. Jobs over a limit wait in their line and are not read until a slot is free.
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

from app.claims import ClaimLost
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode, new_id
from app.infra.db import is_outage
from app.jobs import failover
from app.jobs.db import connection_health, repository, schedule, submissions
from app.jobs.engine.context import EngineContext, persist
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.records import Job
from app.jobs.states import State
from app.jobs.transitions import Changes
from app.providers.outcomes import ProviderRequest
from app.providers.transport import Call

MINUTE_SECONDS = 60
#: Delay before a job whose provider request could not be built is tried again: a fault of the gateway, not of the job.
BUILD_RETRY_SECONDS = 60
BUILD_FAILED = "The gateway failed to build the request for the provider. It will retry; the error is in its log."
#: Jobs chosen beyond the free slots: some of the next ones may be locked by another transaction.
SPARE = 8
#: A transaction admits no more jobs after this share of their time-out: committed intents must be sent in time.
MOST_SHARE = 0.25
#: Seconds until a connection whose row another worker has locked is tried again.
BUSY_SECONDS = 0.1
DIVERT_BATCH = 100
DIVERT_PAUSE_SECONDS = 10
NOT_REACHED = "The provider could not be reached; nothing was sent. Retrying until the job's deadline."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AdmittedSubmission:
    """One paid request, ready to be sent but for inputs that go into its body. ``deadline`` is event-loop time.

    ``failures`` is how often the connection had failed in a row before; a success then resets its circuit breaker.
    """

    submission_id: UUID
    job_id: UUID
    connection: str
    request: ProviderRequest
    call: Call
    deadline: float
    failures: int


class Admission:
    """Turns waiting jobs into admitted submissions."""

    def __init__(self, context: EngineContext, submit_results: SubmitResults) -> None:
        self._context = context
        self._submit_results = submit_results
        self._busy = False

    async def admit(self, limit: int) -> AsyncIterator[AdmittedSubmission]:
        """At most ``limit`` submissions with committed intents: each must be sent now, or its result becomes unknown.

        Those of a connection are yielded right after its commit, so a slow connection does not delay the others.
        """
        self._busy = False
        if limit <= 0:
            return
        async with self._context.database.read() as conn:
            lines = await schedule.lines(conn)
            closed = await connection_health.closed(conn) if lines else set()
            broken = await connection_health.closed(conn, self._context.settings.break_after) if closed else set()
        # Before anything is committed: an error here must not keep an admitted submission from being sent.
        for line in list(lines):
            try:
                lines |= await self._divert(line, broken)
            except Exception:
                log.exception("diverting jobs failed", line=line)
        for connection in self._context.registry.connections:
            models = lines.intersection(self._context.registry.models_of(connection))
            if not models or limit <= 0 or connection in closed:
                continue
            try:
                admitted = await self._admit(connection, sorted(models), limit)
            except Exception:
                log.exception("admission failed", connection=connection)
                admitted = None
            if admitted is None:
                # The connection is not at fault: these jobs must not go to connections that come after it.
                lines = lines.difference(models)
                continue
            limit -= len(admitted)
            for submission in admitted:
                yield submission

    async def next_due(self) -> float | None:
        """Seconds until a job may become admissible without a ring."""
        if self._busy:
            return BUSY_SECONDS
        async with self._context.database.read() as conn:
            ready = await schedule.next_ready(conn)
            opening = await connection_health.next_opening(conn, list(self._context.registry.connections))
        return min((seconds for seconds in (ready, opening) if seconds is not None), default=None)

    async def _admit(self, connection: str, models: Sequence[str], room: int) -> list[AdmittedSubmission] | None:
        """The submissions that a connection has room for; None while another transaction holds its row."""
        intended: list[tuple[UUID, UUID]] = []
        enough = asyncio.get_running_loop().time() + MOST_SHARE * self._context.settings.submit_timeout
        try:
            async with self._context.transitions.begin() as changes:
                conn = changes.conn
                health = await connection_health.lock(conn, connection)
                if health is None:
                    self._busy = True
                    return None
                free = min(room, await self._free(conn, health))
                if free <= 0:
                    return []
                await failpoint(Failpoint.SUBMIT_CLAIMED)
                fairest = await schedule.fairest(conn, connection, models, free + SPARE)
                admitted = []
                for job, model in (await repository.lock_waiting(conn, connection, fairest))[:free]:
                    submission_id = new_id()
                    intended.append((job.id, submission_id))
                    one = await self._intend(changes, job, model, submission_id, health)
                    admitted += [one] if one else []
                    if asyncio.get_running_loop().time() >= enough:
                        break
                if admitted and health.failures >= self._context.settings.break_after:
                    # Half-open: this submission tests the connection, and the others wait for its result.
                    await connection_health.close(conn, connection, self._lease)
                await failpoint(Failpoint.SUBMIT_WRITTEN)
        except Exception as error:
            for job_id, submission_id in intended:
                await persist(partial(self._withdraw, job_id, submission_id))
            if intended and not is_outage(error):
                # The database refused one job, the last: it must not block the others.
                await self._postpone(intended[-1][0])
            raise
        await failpoint(Failpoint.SUBMIT_COMMITTED)
        return admitted

    async def _free(self, conn: AsyncConnection, health: connection_health.ConnectionHealth) -> int:
        """How many jobs a connection accepts now."""
        if health.closed_for > 0:
            return 0
        configured = self._context.registry.connection(health.name)
        free = configured.max_concurrent - await submissions.slots_taken(conn, health.name)
        if configured.requests_per_minute is not None and free > 0:
            sent = await submissions.sent_within(conn, health.name, MINUTE_SECONDS)
            free = min(free, configured.requests_per_minute - sent)
        return min(free, 1) if health.failures >= self._context.settings.break_after else free

    async def _intend(
        self,
        changes: Changes,
        job: Job,
        model: str,
        submission_id: UUID,
        health: connection_health.ConnectionHealth,
    ) -> AdmittedSubmission | None:
        """Write the intent; None if the provider's request cannot be built."""
        connection = health.name
        spec = job.spec_for(model)
        route = self._context.registry.route(model, connection)
        within = self._context.settings.submit_timeout
        # Taken before the database sets its own send deadline: ours must not be the later one.
        deadline = asyncio.get_running_loop().time() + within
        try:
            provider = self._context.registry.provider(connection)
            request = self._context.request(job, model, route.upstream_model, provider)
            call = self._context.paid_call(provider, connection, request, submission_id)
        except Exception:
            log.exception("provider request not built", job=encode(Prefix.JOB, job.id), connection=connection)
            await schedule.postpone(changes.conn, job.id, BUILD_RETRY_SECONDS)
            await changes.notice(job.id, BUILD_FAILED)
            return None
        await submissions.write_intent(
            changes.conn,
            submissions.Intent(
                id=submission_id,
                job_id=job.id,
                account_id=job.account_id,
                connection=connection,
                model=model,
                upstream_model=route.upstream_model,
                estimated_cost=spec.estimated_cost,
                body_hash=hashlib.sha256(call.body).digest(),
                order_hash=request.hash,
                send_within=within,
            ),
        )
        await changes.move(
            job.id,
            State.SUBMITTING,
            from_=(State.QUEUED,),
            fence=None,
            next_in=self._lease,
            model_used=model,
        )
        return AdmittedSubmission(submission_id, job.id, connection, request, call, deadline, health.failures)

    @property
    def _lease(self) -> float:
        return self._context.settings.submit_timeout + self._context.settings.submit_margin

    async def _withdraw(self, job_id: UUID, submission_id: UUID) -> None:
        """The commit failed: the intent may be committed, and nothing was sent."""
        with suppress(ClaimLost):
            await self._submit_results.not_sent_in_time(job_id, submission_id, "the intent could not be committed")

    async def _postpone(self, job_id: UUID) -> None:
        async with self._context.database.begin() as conn:
            await schedule.postpone(conn, job_id, BUILD_RETRY_SECONDS)

    async def _divert(self, line: str, broken: set[str]) -> set[str]:
        """Move jobs whose routes are all closed to other routes that they may use.

        Returns the lines that they wait in now.
        """
        serving = self._context.registry.connections_of(line)
        if serving and broken.isdisjoint(serving):
            return set()
        async with self._context.database.read() as conn:
            open_ = [name for name in serving if name not in broken]
            job_ids = await schedule.divertible(conn, line, open_, DIVERT_BATCH)
        routes = [await self._reroute(job_id, line, broken) for job_id in job_ids]
        return {route.model for route in routes if route is not None}

    async def _reroute(self, job_id: UUID, line: str, broken: set[str]) -> failover.NextRoute | None:
        async with self._context.database.begin() as conn:
            job = await repository.lock(conn, job_id, skip_locked=True)
            if job is None:
                return None
            ledger = await submissions.ledger_of(conn, job_id)
            route = failover.next_route(job, ledger, self._context.registry.connections_of, broken)
            if route is None or not await schedule.divert(conn, job, line, route):
                await schedule.postpone(conn, job_id, DIVERT_PAUSE_SECONDS)
                return None
        log.info("job diverted", job=encode(Prefix.JOB, job_id), model=route.model, avoid=route.avoid)
        return route
