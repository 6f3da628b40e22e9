"""A gateway behind PgBouncer in transaction mode."""

from collections.abc import AsyncIterator

import pytest

from app.embedded.servers import Postgres
from tests.pooler.pgbouncer import running_pgbouncer
from tests.support.gateway_fixtures import gateway, plain_logs, sandbox_url, settings

__all__ = ["gateway", "plain_logs", "pooler_url", "sandbox_url", "settings"]


@pytest.fixture(scope="session")
async def pooler_url(postgres: Postgres, postgres_url: str) -> AsyncIterator[str]:
    """The database of ``postgres_url``, behind a PgBouncer."""
    del postgres_url
    async with running_pgbouncer(postgres) as url:
        yield url
