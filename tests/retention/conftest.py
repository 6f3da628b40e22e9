"""A workshop on an empty database, whose past a test makes older."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.db import Database
from tests.retention.attic import Attic
from tests.support.running import plain_logs
from tests.support.workshop import opened_workshop

__all__ = ["plain_logs"]


@pytest.fixture
async def attic(database: Database, postgres_url: str, tmp_path: Path) -> AsyncIterator[Attic]:
    del database
    async with opened_workshop(postgres_url, tmp_path) as workshop:
        yield Attic(workshop)
