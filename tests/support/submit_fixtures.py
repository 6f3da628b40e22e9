"""The submitter, one move at a time: jobs ordered through the real service, purchases made over real HTTP."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.accounts.service import KeyService
from app.ids import Prefix, decode
from app.jobs.api.requests import JobRequest
from app.jobs.engine.admission import Admission, AdmittedSubmission
from app.jobs.engine.context import EngineContext
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.engine.submitter import Submitter
from app.jobs.records import Claim
from app.providers.base import Rejected
from app.providers.errors import Billed, Failure, Fault
from app.settings import Settings
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.lane_driver import PATIENT
from tests.support.scripted_runway import MAIN, OTHER, Studio, served_by_studios

REFUSED = Rejected(Failure(Fault.PROMPT, retryable=False, billed=Billed.NO))


def submitter_of(engine: EngineContext) -> Submitter:
    """A submitter with its admission, as every worker has."""
    results = SubmitResults(engine)
    return Submitter(engine, Admission(engine, results), results, limit=100)


@dataclass
class Desk:
    """A gateway, as a rule without workers. ``account`` is the one whose key the gateway's client has."""

    gateway: Gateway
    account: UUID

    def submitter(self) -> Submitter:
        """One as every worker has."""
        return submitter_of(self.gateway.resources.engine)

    async def stranger(self, name: str = "strangers") -> UUID:
        """Another account."""
        return (await KeyService(self.gateway.resources.database).create(name, "key")).account_id

    async def order(self, count: int = 1, *, account: UUID | None = None, **fields: Any) -> list[UUID]:
        """So many jobs, oldest first."""
        new = JobRequest.model_validate({"prompt": PROMPT, "model": "studio/main", **fields})
        jobs = [await self.gateway.resources.jobs.create(account or self.account, new, None) for _ in range(count)]
        return [inner(created.job.id) for created in jobs]

    async def let_in(self, limit: int = 100, *, submitter: Submitter | None = None) -> list[AdmittedSubmission]:
        """One round of admission."""
        items = (submitter or self.submitter()).claim(limit)
        return [item async for item in items if not isinstance(item, Claim)]

    async def buy(self, purchases: Sequence[AdmittedSubmission]) -> None:
        """Send them, one after the other, and write down what came of it."""
        submitter = self.submitter()
        for purchase in purchases:
            await submitter.advance(purchase)

    async def free(self, purchase: AdmittedSubmission) -> None:
        """Give a slot back: the provider said no, and the job has ended."""
        await SubmitResults(self.gateway.resources.engine).rejected(purchase.job_id, purchase.submission_id, REFUSED)

    async def execute(self, statement: str, **fields: Any) -> None:
        async with self.gateway.resources.database.begin() as conn:
            await conn.execute(PATIENT)
            await conn.execute(text(statement), fields)

    async def value(self, statement: str, **fields: Any) -> Any:
        async with self.gateway.resources.database.read() as conn:
            return await conn.scalar(text(statement), fields)

    async def until(self, query: str, **fields: Any) -> Any:
        """What a query finds, as soon as it finds something."""
        while not (found := await self.value(query, **fields)):
            pass
        return found

    async def ledger(self, job_id: str) -> list[tuple[str, str, str]]:
        """Where a job was bought, which model, and what came of it."""
        rows = await self.gateway.submissions(job_id)
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        return [(row["connection"], row["model"].removeprefix("studio/"), row["state"]) for row in rows]

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        """What has happened to a job until now."""
        found = await self.gateway.resources.events.after(self.account, inner(job_id), 0)
        return [{"type": event.type, "data": event.data} for event in found]

    async def log(self, job_id: str) -> list[dict[str, Any]]:
        """What happened to an ended job, without the progress."""
        lines = (await self.gateway.client.get(f"/v1/jobs/{job_id}/events")).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["data"]["version"] for event in events] == list(range(1, len(events) + 1))
        return [event for event in events if event["type"] != "job.progress"]

    async def break_(self, *names: str) -> None:
        """Let connections be closed, as after many failures."""
        for name in names:
            await self.execute(
                "INSERT INTO connections (name, failures, closed_until) VALUES (:name, 1000, now() + '1 hour') "
                "ON CONFLICT (name) DO UPDATE SET failures = 1000, closed_until = excluded.closed_until",
                name=name,
            )

    async def pause_over(self) -> None:
        """Let the time be over for which connections are closed."""
        await self.execute("UPDATE connections SET closed_until = clock_timestamp() WHERE closed_until IS NOT NULL")

    async def works_again(self, name: str) -> None:
        await self.execute("UPDATE connections SET failures = 0, closed_until = NULL WHERE name = :name", name=name)

    async def line_of(self, job_id: UUID) -> str | None:
        """In which model's line a job waits."""
        queue: str | None = await self.value("SELECT queue FROM schedule WHERE job_id = :job", job=job_id)
        return queue


def inner(public_id: str, prefix: Prefix = Prefix.JOB) -> UUID:
    """The id as the database has it."""
    found = decode(prefix, public_id)
    assert found is not None
    return found


def ways(purchases: Sequence[AdmittedSubmission]) -> list[tuple[UUID, str]]:
    """Who was let in, and where."""
    return [(purchase.job_id, purchase.connection) for purchase in purchases]


class Office:
    """Opens desks with one studio behind them, or two. The circuit breaker is quick, and its pauses are long."""

    def __init__(self, settings: Settings, sandbox_url: str, studios: Mapping[str, Studio]) -> None:
        self._settings = settings
        self._sandbox_url = sandbox_url
        self._studios = studios

    def changed(self, group: str, **values: object) -> "Office":
        """The same with other settings in a group."""
        copy = getattr(self._settings, group).model_copy(update=values)
        return Office(self._settings.model_copy(update={group: copy}), self._sandbox_url, self._studios)

    def ways(self, **connections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Connections to the studios of those names."""
        return {name: {"base_url": self._studios[name].url, **options} for name, options in connections.items()}

    def one(self, *, workers: int = 0, **limits: int) -> AbstractAsyncContextManager[Desk]:
        """The first studio, with these limits."""
        return self.open(self.ways(first=limits), workers=workers)

    def two(
        self, first: list[str], second: list[str], *, max_concurrent: int = 20, **options: Any
    ) -> AbstractAsyncContextManager[Desk]:
        """Both studios, with the models that each one serves."""
        slots = {"max_concurrent": max_concurrent}
        return self.open(self.ways(first={"models": first, **slots}, second={"models": second, **slots}), **options)

    @asynccontextmanager
    async def open(
        self, connections: Mapping[str, Mapping[str, Any]], *, workers: int = 0, **jobs: float
    ) -> AsyncIterator[Desk]:
        """``connections`` and ``jobs`` as in :func:`~tests.support.scripted_runway.served_by_studios`."""
        # submit_timeout: a loaded machine may take seconds between a claim and its request
        pauses = {"break_after": 3, "break_pause": 100, "longest_break": 300, "submit_timeout": 10}
        settings = served_by_studios(self._settings, connections, **{**pauses, **jobs})
        async with running_gateway(settings, self._sandbox_url, workers=workers) as gateway:
            key = await KeyService(gateway.resources.database).create("tests", "desk")
            yield Desk(gateway, key.account_id)


@pytest.fixture
def office(settings: Settings, sandbox_url: str, first: Studio, second: Studio) -> Office:
    return Office(settings, sandbox_url, {"first": first, "second": second})


def shop(
    office: Office, first: Sequence[str] = (MAIN,), second: Sequence[str] = (MAIN, OTHER), **jobs: float
) -> AbstractAsyncContextManager[Desk]:
    """A whole gateway with a worker, whose circuit breaker stays out of the way."""
    options: dict[str, Any] = {"break_after": 1000, **jobs}
    return office.two([*first], [*second], workers=1, **options)


def asked(studio: Studio) -> list[str]:
    """The models that a studio was asked for, in order."""
    return [order["model"] for order in studio.orders]
