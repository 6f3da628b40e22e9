"""A workshop on an empty database, whose past a test makes older."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.infra.db import Database
from tests.retention.aged_jobs import Attic
from tests.support.engine_fixture import opened_engine
from tests.support.gateway_fixtures import plain_logs

__all__ = ["plain_logs"]


@pytest.fixture
async def attic(database: Database, postgres_url: str, tmp_path: Path) -> AsyncIterator[Attic]:
    del database
    async with opened_engine(postgres_url, tmp_path) as engine:
        yield Attic(engine)
