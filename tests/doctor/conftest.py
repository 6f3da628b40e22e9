"""A gateway without workers: what is stuck in it stays stuck, and a test's own hands move the rest."""

from collections.abc import AsyncIterator

import pytest

from app.embedded.servers import Postgres
from app.settings import Settings
from tests.doctor.broken_gateway import BrokenGateway, Unguarded, unguarded
from tests.support.gateway import Gateway, running_gateway
from tests.support.gateway_fixtures import plain_logs, sandbox_url, settings

__all__ = ["plain_logs", "sandbox_url", "settings"]


@pytest.fixture
async def gateway(settings: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    async with running_gateway(settings, sandbox_url, workers=0) as running:
        await running.sandbox.delete("/ledger")
        yield running


@pytest.fixture
def broken(gateway: Gateway) -> BrokenGateway:
    return BrokenGateway(gateway)


@pytest.fixture(scope="session")
async def unguarded_database(postgres: Postgres) -> AsyncIterator[Unguarded]:
    """A database of its own, in which what must never be can be."""
    async with unguarded(await postgres.create_database("unguarded")) as database:
        yield database
