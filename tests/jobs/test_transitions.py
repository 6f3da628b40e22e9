"""Every transition of the table is made by the real services on real Postgres."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.queue import Lane
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.states import ALLOWED, State
from app.providers.base import Accepted, CancelOutcome
from tests.support.engine_fixture import EngineDriver, opened_engine
from tests.support.sample_files import picture
from tests.support.scripted_provider import BUSY_NOW, DROPPED, LOST, REFUSED_FOR_GOOD, UNREACHABLE, Phase

PREPARING, QUEUED, SUBMITTING, UNKNOWN, RUNNING, STORING, SUCCEEDED, FAILED, CANCELED = State

Way = Callable[[EngineDriver], Awaitable[UUID]]
WAYS: list[tuple[tuple[State, State], Way]] = []


def makes(source: State, to: State) -> Callable[[Way], Way]:
    """Notes a way to make a move; what it returns is the job that made it last."""

    def note(way: Way) -> Way:
        WAYS.append(((source, to), way))
        return way

    return note


@pytest.fixture
async def engine(database: Database, postgres_url: str, tmp_path: Path) -> AsyncIterator[EngineDriver]:
    del database
    async with opened_engine(postgres_url, tmp_path) as opened:
        yield opened


# What several of them begin with ----------------------------------------------------------------------------------


async def sent(engine: EngineDriver, fate: str | None = None, kind: str = "reference") -> UUID:
    """A job whose paid request came to this."""
    if fate is not None:
        engine.books[kind].fates.append(fate)
    job_id = await engine.order(kind)
    await engine.work(Lane.SUBMIT)
    return job_id


async def rendered(engine: EngineDriver, phase: Phase, kind: str = "reference") -> UUID:
    """A job whose render has ended upstream, and was looked at."""
    job_id = await sent(engine, kind=kind)
    for record in engine.books[kind].records.values():
        record.phase = phase
    await engine.pass_time(20)
    await engine.work(Lane.POLL)
    return job_id


async def proven_absent(engine: EngineDriver) -> UUID:
    """A job that is queued again because the provider holds no record, though it does."""
    job_id = await sent(engine, LOST)
    (record,) = engine.books["reference"].records.values()
    record.made_at += 10_000
    for _ in range(2):
        await engine.pass_time(100)
        await engine.work(Lane.RESOLVE)
    return job_id


# The ways ---------------------------------------------------------------------------------------------------------


async def with_a_picture(engine: EngineDriver, **fields: Any) -> UUID:
    """A job whose inputs are to be prepared."""

    async def content() -> AsyncIterator[bytes]:
        yield picture("PNG", size=(128, 96))

    given = await engine.resources.files.take(engine.account_id, content(), name=None, field="file")
    inputs = [{"role": "first_frame", "file_id": encode(Prefix.FILE, given.file.id)}]
    return await engine.order(inputs=inputs, **fields)


@makes(PREPARING, QUEUED)
async def prepared(engine: EngineDriver) -> UUID:
    job_id = await with_a_picture(engine)
    await engine.work(Lane.PREPARE)
    return job_id


@makes(PREPARING, CANCELED)
async def canceled_while_it_was_prepared(engine: EngineDriver) -> UUID:
    job_id = await with_a_picture(engine)
    await engine.cancel(job_id)
    return job_id


@makes(PREPARING, FAILED)
async def prepared_for_too_long(engine: EngineDriver) -> UUID:
    job_id = await with_a_picture(engine, deadline_seconds=10)
    await engine.pass_time(11)
    await engine.work(Lane.PREPARE)
    return job_id


@makes(PREPARING, FAILED)
async def found_without_its_picture(engine: EngineDriver) -> UUID:
    job_id = await with_a_picture(engine)
    await engine.execute("UPDATE files SET stored_at = NULL")
    await engine.work(Lane.PREPARE)
    return job_id


@makes(QUEUED, SUBMITTING)
async def let_in(engine: EngineDriver) -> UUID:
    job_id = await engine.order()
    await engine.claim(Lane.SUBMIT)
    return job_id


@makes(QUEUED, CANCELED)
async def canceled_in_line(engine: EngineDriver) -> UUID:
    job_id = await engine.order()
    await engine.cancel(job_id)
    return job_id


@makes(QUEUED, CANCELED)
async def canceled_while_it_was_sent_in_vain(engine: EngineDriver) -> UUID:
    engine.books["reference"].fates.append(UNREACHABLE)
    job_id = await engine.order()
    (send,) = await engine.claim(Lane.SUBMIT)
    await engine.cancel(job_id)
    await send()
    return job_id


@makes(QUEUED, FAILED)
async def waited_past_its_deadline(engine: EngineDriver) -> UUID:
    job_id = await engine.order(deadline_seconds=10)
    await engine.pass_time(11)
    await engine.work(Lane.SUBMIT)
    return job_id


@makes(QUEUED, RUNNING)
async def bought_after_all(engine: EngineDriver) -> UUID:
    job_id = await proven_absent(engine)
    (submission,) = await engine.ledger(job_id)
    (record,) = engine.books["reference"].records.values()
    await SubmitResults(engine.resources.engine).accepted(job_id, submission.id, Accepted(record.remote_id))
    return job_id


@makes(QUEUED, RUNNING)
async def called_back_after_all(engine: EngineDriver) -> UUID:
    job_id = await proven_absent(engine)
    (submission,) = await engine.ledger(job_id)
    (record,) = engine.books["reference"].records.values()
    await engine.call_back(submission, record.remote_id)
    await engine.work(Lane.RECONCILE)
    return job_id


@makes(SUBMITTING, RUNNING)
async def accepted(engine: EngineDriver) -> UUID:
    return await sent(engine)


@makes(SUBMITTING, QUEUED)
async def never_sent(engine: EngineDriver) -> UUID:
    return await sent(engine, UNREACHABLE)


@makes(SUBMITTING, QUEUED)
async def turned_away_for_now(engine: EngineDriver) -> UUID:
    return await sent(engine, BUSY_NOW)


@makes(SUBMITTING, FAILED)
async def refused(engine: EngineDriver) -> UUID:
    return await sent(engine, REFUSED_FOR_GOOD)


@makes(SUBMITTING, UNKNOWN)
async def answer_lost(engine: EngineDriver) -> UUID:
    return await sent(engine, LOST)


@makes(SUBMITTING, UNKNOWN)
async def sender_gone(engine: EngineDriver) -> UUID:
    job_id = await engine.order()
    await engine.claim(Lane.SUBMIT)
    await engine.pass_time(60)
    await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, RUNNING)
async def looked_up(engine: EngineDriver) -> UUID:
    job_id = await sent(engine, LOST)
    await engine.pass_time(100)
    await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, RUNNING)
async def sent_again(engine: EngineDriver) -> UUID:
    job_id = await sent(engine, LOST, "replay")
    await engine.pass_time(100)
    await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, RUNNING)
async def called_back(engine: EngineDriver) -> UUID:
    job_id = await sent(engine, LOST, "none")
    (submission,) = await engine.ledger(job_id)
    (record,) = engine.books["none"].records.values()
    await engine.call_back(submission, record.remote_id)
    await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, RUNNING)
async def told_late_by_the_sender(engine: EngineDriver) -> UUID:
    job_id = await engine.order()
    (send,) = await engine.claim(Lane.SUBMIT)
    await engine.pass_time(60)
    await engine.work(Lane.RESOLVE)
    (submission,) = await engine.ledger(job_id)
    record = engine.books["reference"].accept(submission.id)
    del send  # it sleeps still
    await SubmitResults(engine.resources.engine).accepted(job_id, submission.id, Accepted(record.remote_id))
    return job_id


@makes(UNKNOWN, QUEUED)
async def absent_twice(engine: EngineDriver) -> UUID:
    job_id = await sent(engine, DROPPED)
    for _ in range(2):
        await engine.pass_time(100)
        await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, FAILED)
async def nothing_can_be_proven(engine: EngineDriver) -> UUID:
    job_id = await sent(engine, LOST, "none")
    await engine.pass_time(1000)
    await engine.work(Lane.RESOLVE)
    return job_id


@makes(UNKNOWN, FAILED)
async def refusal_told_late(engine: EngineDriver) -> UUID:
    engine.books["reference"].fates.append(REFUSED_FOR_GOOD)
    job_id = await engine.order()
    (send,) = await engine.claim(Lane.SUBMIT)
    await engine.execute("UPDATE schedule SET next_at = clock_timestamp()")  # the lease ran out before the deadline
    await engine.work(Lane.RESOLVE)
    await send()
    return job_id


@makes(RUNNING, STORING)
async def finished(engine: EngineDriver) -> UUID:
    return await rendered(engine, Phase.FINISHED)


@makes(RUNNING, QUEUED)
async def failed_and_goes_another_way(engine: EngineDriver) -> UUID:
    job_id = await engine.order(fallbacks=["books/none"], max_cost="1")
    await engine.work(Lane.SUBMIT)
    for record in engine.books["reference"].records.values():
        record.phase = Phase.FREE
    await engine.pass_time(20)
    await engine.work(Lane.POLL)
    return job_id


@makes(RUNNING, QUEUED)
async def lost_at_no_cost(engine: EngineDriver) -> UUID:
    job_id = await engine.order("free")
    await engine.work(Lane.SUBMIT)
    for record in engine.books["free"].records.values():
        record.forgotten = True
    for _ in range(2):
        await engine.pass_time(700)
        await engine.work(Lane.POLL)
    return job_id


@makes(RUNNING, FAILED)
async def failed_for_good(engine: EngineDriver) -> UUID:
    return await rendered(engine, Phase.BILLED, "none")


@makes(RUNNING, FAILED)
async def canceled_by_somebody_else(engine: EngineDriver) -> UUID:
    return await rendered(engine, Phase.CANCELED)


@makes(RUNNING, FAILED)
async def rendered_past_its_deadline(engine: EngineDriver) -> UUID:
    job_id = await sent(engine)
    await engine.pass_time(4000)
    await engine.work(Lane.POLL)
    return job_id


@makes(RUNNING, FAILED)
async def lost_upstream(engine: EngineDriver) -> UUID:
    job_id = await sent(engine)
    for record in engine.books["reference"].records.values():
        record.forgotten = True
    for _ in range(2):
        await engine.pass_time(700)
        await engine.work(Lane.POLL)
    return job_id


@makes(RUNNING, CANCELED)
async def canceled_upstream(engine: EngineDriver) -> UUID:
    job_id = await sent(engine)
    await engine.cancel(job_id)
    await engine.work(Lane.POLL)
    return job_id


@makes(RUNNING, CANCELED)
async def forgotten_after_a_cancel(engine: EngineDriver) -> UUID:
    job_id = await sent(engine)
    engine.books["reference"].cancel_answer = CancelOutcome.REQUESTED
    await engine.cancel(job_id)
    await engine.work(Lane.POLL)
    for record in engine.books["reference"].records.values():
        record.forgotten = True
    await engine.pass_time(20)
    await engine.work(Lane.POLL)
    return job_id


@makes(STORING, SUCCEEDED)
async def stored(engine: EngineDriver) -> UUID:
    job_id = await rendered(engine, Phase.FINISHED)
    await engine.work(Lane.STORE)
    return job_id


@makes(STORING, FAILED)
async def not_to_be_had(engine: EngineDriver) -> UUID:
    engine.books["reference"].video_is_there = False
    job_id = await rendered(engine, Phase.FINISHED)
    for _ in range(2):
        await engine.pass_time(700)
        await engine.work(Lane.STORE)
    return job_id


@makes(STORING, QUEUED)
async def lost_before_it_was_fetched(engine: EngineDriver) -> UUID:
    job_id = await rendered(engine, Phase.FINISHED, "free")
    for record in engine.books["free"].records.values():
        record.forgotten = True
    for _ in range(2):
        await engine.pass_time(700)
        await engine.work(Lane.STORE)
    return job_id


# The proof --------------------------------------------------------------------------------------------------------


def test_every_move_has_a_way() -> None:
    assert {move for move, _ in WAYS} == set(ALLOWED)


@pytest.mark.parametrize(("move", "way"), [pytest.param(move, way, id=way.__name__) for move, way in WAYS])
async def test_it_is_made(engine: EngineDriver, move: tuple[State, State], way: Way) -> None:
    job_id = await way(engine)
    states = await engine.states(job_id)
    assert move == (states[-2], states[-1]), states
    job = await engine.job(job_id)
    assert job.state is move[1]
    lanes = await engine.rows("SELECT lane FROM schedule WHERE job_id = :id", id=job_id)
    assert len(lanes) == (0 if job.final else 1)
