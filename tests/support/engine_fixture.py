"""The real engine on real Postgres, without HTTP and without a loop that runs by itself: a test makes every move."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs.api.requests import JobRequest
from app.jobs.db import repository, submissions
from app.jobs.records import Job, Submission
from app.jobs.states import EVENTS, State
from app.providers import registry
from app.resources import Resources
from app.settings import Settings
from tests.support.database import add_account
from tests.support.lane_driver import LaneDriver, inner
from tests.support.scripted_provider import Books, ScriptedProvider, as_connections, as_models
from tests.support.settings import gateway_settings

PUBLIC_URL = "http://gateway.invalid"


class SilentBell:
    """Nobody waits for it: the lanes are worked by hand."""

    def ring(self, *lanes: Lane) -> None:
        del lanes


class EngineDriver(LaneDriver):
    """Jobs of one account, and the providers' books."""

    def __init__(self, resources: Resources, account_id: UUID) -> None:
        super().__init__(resources)
        self.account_id = account_id

    @property
    def books(self) -> dict[str, Books]:
        return ScriptedProvider.shelf

    async def order(self, kind: str = "reference", **fields: Any) -> UUID:
        """A job for one kind of provider."""
        new = JobRequest.model_validate({"prompt": "a video", "model": f"books/{kind}", **fields})
        created = await self.resources.jobs.create(self.account_id, new, None)
        return inner(created.job.id)

    async def cancel(self, job_id: UUID) -> None:
        await self.resources.jobs.cancel(self.account_id, encode(Prefix.JOB, job_id))

    async def call_back(self, submission: Submission, remote_id: str) -> None:
        """A callback with the right token."""
        url = self.resources.engine.callbacks.of(submission.connection, submission.id)
        assert url is not None
        token = url.rpartition("/")[2]
        await self.resources.callbacks.receive(submission.connection, token, {}, json.dumps({"id": remote_id}).encode())

    async def job(self, job_id: UUID) -> Job:
        async with self.resources.database.read() as conn:
            job = await repository.get(conn, job_id)
        assert job is not None
        return job

    async def ledger(self, job_id: UUID) -> list[Submission]:
        async with self.resources.database.read() as conn:
            return await submissions.ledger_of(conn, job_id)

    async def states(self, job_id: UUID) -> list[State]:
        """Where the job has been, by its log."""
        by_event = {event: state for state, event in EVENTS.items()}
        rows = await self.rows("SELECT type FROM events WHERE subject_id = :id ORDER BY seq", id=job_id)
        return [by_event[event_type] for (event_type,) in rows if event_type in by_event]

    async def pass_time(self, seconds: float) -> None:
        await super().pass_time(seconds)
        for books in self.books.values():
            books.clock += seconds


def engine_settings(postgres_url: str, directory: Path) -> Settings:
    """Nothing but a database and providers in memory."""
    return gateway_settings(
        postgres_url=postgres_url,
        redis_url="redis://127.0.0.1:9",
        sandbox_url="http://127.0.0.1:9",
        directory=directory,
        api={"public_url": PUBLIC_URL},
        worker={"lease": 30, "shutdown_grace": 40},
        jobs={"submit_timeout": 30, "break_after": 1_000_000},
        assets={"fetch_tries": 2},
        connections=as_connections(),
        models=as_models(),
    )


@asynccontextmanager
async def opened_engine(postgres_url: str, directory: Path) -> AsyncIterator[EngineDriver]:
    """On an empty database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.ADAPTERS, ScriptedProvider.name, ScriptedProvider)
        ScriptedProvider.shelf.clear()
        async with Resources.open(engine_settings(postgres_url, directory), SilentBell(), process="tests") as opened:
            await asyncio.to_thread(opened.assets.prepare)
            async with opened.database.begin() as conn:
                account_id = await add_account(conn)
            yield EngineDriver(opened, account_id)
