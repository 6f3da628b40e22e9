"""How tests make a gateway ill, through its own services, and ask the doctor."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.cli.doctor import NoBell
from app.database_settings import DatabaseSettings
from app.doctor.checks import Report, examine
from app.doctor.findings import Finding
from app.ids import Prefix, decode
from app.infra import migrate
from app.infra.db import Database
from app.jobs.engine.admission import AdmittedSubmission
from app.jobs.engine.submit_results import SubmitResults
from app.resources import Resources
from app.settings import Settings
from tests.support.gateway import Gateway

RUNWAY = {"model": "runway/gen4.5", "seconds": 2, "size": "1280x720"}


class BrokenGateway:
    """A gateway whose steps a test makes one by one."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.resources = gateway.resources
        self.outcomes = SubmitResults(gateway.resources.engine)

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.resources.database.begin() as conn:
            await conn.execute(text(statement), values)

    async def order(self, **fields: Any) -> UUID:
        """A job in its line."""
        job_id = decode(Prefix.JOB, (await self.gateway.create(**fields))["id"])
        assert job_id is not None
        return job_id

    async def intend(self, **fields: Any) -> AdmittedSubmission:
        """A job whose purchase is about to be sent, and is not."""
        await self.order(**fields)
        return await self.intend_again()

    async def intend_again(self) -> AdmittedSubmission:
        """The intent of the only job that may be bought now."""
        (purchase,) = [item async for item in self.resources.steps.submitter.claim(100)]
        assert isinstance(purchase, AdmittedSubmission)
        return purchase

    async def examine(self, **options: bool) -> Mapping[str, Finding]:
        return by_code(await examine(self.resources, **options))


async def examined(settings: Settings, **options: bool) -> Mapping[str, Finding]:
    """What the doctor says of a gateway with these settings."""
    async with Resources.open(settings, NoBell(), process="doctor") as resources:
        return by_code(await examine(resources, **options))


def by_code(report: Report) -> Mapping[str, Finding]:
    """The findings, which must be one of each kind."""
    found = {finding.code: finding for finding in report.findings}
    assert len(found) == len(report.findings), report.findings
    return found


@dataclass(frozen=True, slots=True)
class Unguarded:
    """A database whose guards are off."""

    url: str
    database: Database

    async def execute(self, statements: Sequence[str]) -> None:
        async with self.database.begin() as conn:
            for statement in statements:
                await conn.execute(text(statement))


@asynccontextmanager
async def unguarded(url: str) -> AsyncIterator[Unguarded]:
    await migrate.upgrade(url)
    database = Database.open(DatabaseSettings.model_validate({"url": url}), application="tests")
    try:
        opened = Unguarded(url, database)
        await opened.execute([
            "ALTER TABLE jobs DISABLE TRIGGER USER",
            "ALTER TABLE schedule DISABLE TRIGGER USER",
            "DROP INDEX uq_submissions_live",
        ])  # fmt: skip
        yield opened
    finally:
        await database.close()
