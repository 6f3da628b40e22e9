"""Every move of the table is made by the real services, on real Postgres: a move that nobody makes is none."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from app.infra.db import Database
from app.infra.queue import Lane
from app.jobs.engine.submit_results import Outcomes
from app.jobs.states import ALLOWED, State
from app.providers.base import Accepted, CancelOutcome
from tests.support.engine_fixture import Workshop, opened_workshop
from tests.support.scripted_provider import BUSY_NOW, DROPPED, LOST, REFUSED_FOR_GOOD, UNREACHABLE, Phase

QUEUED, SUBMITTING, UNKNOWN, RUNNING, STORING, SUCCEEDED, FAILED, CANCELED = State

Way = Callable[[Workshop], Awaitable[UUID]]
WAYS: list[tuple[tuple[State, State], Way]] = []


def makes(source: State, to: State) -> Callable[[Way], Way]:
    """Notes a way to make a move; what it returns is the job that made it last."""

    def note(way: Way) -> Way:
        WAYS.append(((source, to), way))
        return way

    return note


@pytest.fixture
async def workshop(database: Database, postgres_url: str, tmp_path: Path) -> AsyncIterator[Workshop]:
    del database
    async with opened_workshop(postgres_url, tmp_path) as opened:
        yield opened


# What several of them begin with ----------------------------------------------------------------------------------


async def sent(workshop: Workshop, fate: str | None = None, kind: str = "reference") -> UUID:
    """A job whose paid request came to this."""
    if fate is not None:
        workshop.books[kind].fates.append(fate)
    job_id = await workshop.order(kind)
    await workshop.work(Lane.SUBMIT)
    return job_id


async def rendered(workshop: Workshop, phase: Phase, kind: str = "reference") -> UUID:
    """A job whose render has ended upstream, and was looked at."""
    job_id = await sent(workshop, kind=kind)
    for record in workshop.books[kind].records.values():
        record.phase = phase
    await workshop.pass_time(20)
    await workshop.work(Lane.POLL)
    return job_id


async def proven_absent(workshop: Workshop) -> UUID:
    """A job that is queued again because the provider holds no record, though it does."""
    job_id = await sent(workshop, LOST)
    (record,) = workshop.books["reference"].records.values()
    record.made_at += 10_000
    for _ in range(2):
        await workshop.pass_time(100)
        await workshop.work(Lane.CONFIRM)
    return job_id


# The ways ---------------------------------------------------------------------------------------------------------


@makes(QUEUED, SUBMITTING)
async def let_in(workshop: Workshop) -> UUID:
    job_id = await workshop.order()
    await workshop.claim(Lane.SUBMIT)
    return job_id


@makes(QUEUED, CANCELED)
async def canceled_in_line(workshop: Workshop) -> UUID:
    job_id = await workshop.order()
    await workshop.cancel(job_id)
    return job_id


@makes(QUEUED, CANCELED)
async def canceled_while_it_was_sent_in_vain(workshop: Workshop) -> UUID:
    workshop.books["reference"].fates.append(UNREACHABLE)
    job_id = await workshop.order()
    (send,) = await workshop.claim(Lane.SUBMIT)
    await workshop.cancel(job_id)
    await send()
    return job_id


@makes(QUEUED, FAILED)
async def waited_past_its_deadline(workshop: Workshop) -> UUID:
    job_id = await workshop.order(deadline_seconds=10)
    await workshop.pass_time(11)
    await workshop.work(Lane.SUBMIT)
    return job_id


@makes(QUEUED, RUNNING)
async def bought_after_all(workshop: Workshop) -> UUID:
    job_id = await proven_absent(workshop)
    (submission,) = await workshop.ledger(job_id)
    (record,) = workshop.books["reference"].records.values()
    await Outcomes(workshop.resources.bench).accepted(job_id, submission.id, Accepted(record.remote_id))
    return job_id


@makes(QUEUED, RUNNING)
async def called_back_after_all(workshop: Workshop) -> UUID:
    job_id = await proven_absent(workshop)
    (submission,) = await workshop.ledger(job_id)
    (record,) = workshop.books["reference"].records.values()
    await workshop.call_back(submission, record.remote_id)
    await workshop.work(Lane.WATCH)
    return job_id


@makes(SUBMITTING, RUNNING)
async def accepted(workshop: Workshop) -> UUID:
    return await sent(workshop)


@makes(SUBMITTING, QUEUED)
async def never_sent(workshop: Workshop) -> UUID:
    return await sent(workshop, UNREACHABLE)


@makes(SUBMITTING, QUEUED)
async def turned_away_for_now(workshop: Workshop) -> UUID:
    return await sent(workshop, BUSY_NOW)


@makes(SUBMITTING, FAILED)
async def refused(workshop: Workshop) -> UUID:
    return await sent(workshop, REFUSED_FOR_GOOD)


@makes(SUBMITTING, UNKNOWN)
async def answer_lost(workshop: Workshop) -> UUID:
    return await sent(workshop, LOST)


@makes(SUBMITTING, UNKNOWN)
async def sender_gone(workshop: Workshop) -> UUID:
    job_id = await workshop.order()
    await workshop.claim(Lane.SUBMIT)
    await workshop.pass_time(60)
    await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, RUNNING)
async def looked_up(workshop: Workshop) -> UUID:
    job_id = await sent(workshop, LOST)
    await workshop.pass_time(100)
    await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, RUNNING)
async def sent_again(workshop: Workshop) -> UUID:
    job_id = await sent(workshop, LOST, "replay")
    await workshop.pass_time(100)
    await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, RUNNING)
async def called_back(workshop: Workshop) -> UUID:
    job_id = await sent(workshop, LOST, "none")
    (submission,) = await workshop.ledger(job_id)
    (record,) = workshop.books["none"].records.values()
    await workshop.call_back(submission, record.remote_id)
    await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, RUNNING)
async def told_late_by_the_sender(workshop: Workshop) -> UUID:
    job_id = await workshop.order()
    (send,) = await workshop.claim(Lane.SUBMIT)
    await workshop.pass_time(60)
    await workshop.work(Lane.CONFIRM)
    (submission,) = await workshop.ledger(job_id)
    record = workshop.books["reference"].accept(submission.id)
    del send  # it sleeps still
    await Outcomes(workshop.resources.bench).accepted(job_id, submission.id, Accepted(record.remote_id))
    return job_id


@makes(UNKNOWN, QUEUED)
async def absent_twice(workshop: Workshop) -> UUID:
    job_id = await sent(workshop, DROPPED)
    for _ in range(2):
        await workshop.pass_time(100)
        await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, FAILED)
async def nothing_can_be_proven(workshop: Workshop) -> UUID:
    job_id = await sent(workshop, LOST, "none")
    await workshop.pass_time(1000)
    await workshop.work(Lane.CONFIRM)
    return job_id


@makes(UNKNOWN, FAILED)
async def refusal_told_late(workshop: Workshop) -> UUID:
    workshop.books["reference"].fates.append(REFUSED_FOR_GOOD)
    job_id = await workshop.order()
    (send,) = await workshop.claim(Lane.SUBMIT)
    await workshop.execute("UPDATE schedule SET next_at = clock_timestamp()")  # the lease ran out before the deadline
    await workshop.work(Lane.CONFIRM)
    await send()
    return job_id


@makes(RUNNING, STORING)
async def finished(workshop: Workshop) -> UUID:
    return await rendered(workshop, Phase.FINISHED)


@makes(RUNNING, QUEUED)
async def failed_and_goes_another_way(workshop: Workshop) -> UUID:
    job_id = await workshop.order(fallbacks=["books/none"], max_cost="1")
    await workshop.work(Lane.SUBMIT)
    for record in workshop.books["reference"].records.values():
        record.phase = Phase.FREE
    await workshop.pass_time(20)
    await workshop.work(Lane.POLL)
    return job_id


@makes(RUNNING, QUEUED)
async def lost_at_no_cost(workshop: Workshop) -> UUID:
    job_id = await workshop.order("free")
    await workshop.work(Lane.SUBMIT)
    for record in workshop.books["free"].records.values():
        record.forgotten = True
    for _ in range(2):
        await workshop.pass_time(700)
        await workshop.work(Lane.POLL)
    return job_id


@makes(RUNNING, FAILED)
async def failed_for_good(workshop: Workshop) -> UUID:
    return await rendered(workshop, Phase.BILLED, "none")


@makes(RUNNING, FAILED)
async def canceled_by_somebody_else(workshop: Workshop) -> UUID:
    return await rendered(workshop, Phase.CANCELED)


@makes(RUNNING, FAILED)
async def rendered_past_its_deadline(workshop: Workshop) -> UUID:
    job_id = await sent(workshop)
    await workshop.pass_time(4000)
    await workshop.work(Lane.POLL)
    return job_id


@makes(RUNNING, FAILED)
async def lost_upstream(workshop: Workshop) -> UUID:
    job_id = await sent(workshop)
    for record in workshop.books["reference"].records.values():
        record.forgotten = True
    for _ in range(2):
        await workshop.pass_time(700)
        await workshop.work(Lane.POLL)
    return job_id


@makes(RUNNING, CANCELED)
async def canceled_upstream(workshop: Workshop) -> UUID:
    job_id = await sent(workshop)
    await workshop.cancel(job_id)
    await workshop.work(Lane.POLL)
    return job_id


@makes(RUNNING, CANCELED)
async def forgotten_after_a_cancel(workshop: Workshop) -> UUID:
    job_id = await sent(workshop)
    workshop.books["reference"].cancel_answer = CancelOutcome.REQUESTED
    await workshop.cancel(job_id)
    await workshop.work(Lane.POLL)
    for record in workshop.books["reference"].records.values():
        record.forgotten = True
    await workshop.pass_time(20)
    await workshop.work(Lane.POLL)
    return job_id


@makes(STORING, SUCCEEDED)
async def stored(workshop: Workshop) -> UUID:
    job_id = await rendered(workshop, Phase.FINISHED)
    await workshop.work(Lane.STORE)
    return job_id


@makes(STORING, FAILED)
async def not_to_be_had(workshop: Workshop) -> UUID:
    workshop.books["reference"].film_is_there = False
    job_id = await rendered(workshop, Phase.FINISHED)
    for _ in range(2):
        await workshop.pass_time(700)
        await workshop.work(Lane.STORE)
    return job_id


@makes(STORING, QUEUED)
async def lost_before_it_was_fetched(workshop: Workshop) -> UUID:
    job_id = await rendered(workshop, Phase.FINISHED, "free")
    for record in workshop.books["free"].records.values():
        record.forgotten = True
    for _ in range(2):
        await workshop.pass_time(700)
        await workshop.work(Lane.STORE)
    return job_id


# The proof --------------------------------------------------------------------------------------------------------


def test_every_move_has_a_way() -> None:
    assert {move for move, _ in WAYS} == set(ALLOWED)


@pytest.mark.parametrize(("move", "way"), [pytest.param(move, way, id=way.__name__) for move, way in WAYS])
async def test_it_is_made(workshop: Workshop, move: tuple[State, State], way: Way) -> None:
    job_id = await way(workshop)
    states = await workshop.states(job_id)
    assert move == (states[-2], states[-1]), states
    job = await workshop.job(job_id)
    assert job.state is move[1]
    lanes = await workshop.rows("SELECT lane FROM schedule WHERE job_id = :id", id=job_id)
    assert len(lanes) == (0 if job.final else 1)
