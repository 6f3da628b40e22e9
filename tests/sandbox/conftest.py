"""One sandbox for all tests, which forgets everything before each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.sandbox.settings import SandboxSettings
from tests.sandbox.pictures import Host, hosting
from tests.sandbox.server import Client, connected, serving


@pytest.fixture(scope="session")
def video_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
async def sandbox_url(video_directory: Path) -> AsyncIterator[str]:
    """A quick sandbox in which one Runway task of a model runs at a time."""
    settings = SandboxSettings(data_dir=video_directory, render_seconds=0.05, runway_concurrency=1)
    async with serving(settings) as url:
        yield url


@pytest.fixture(scope="session")
async def instant_url(video_directory: Path) -> AsyncIterator[str]:
    """A sandbox that makes no videos of its own: a job that is not held up is finished at once."""
    async with serving(SandboxSettings(render=False, data_dir=video_directory)) as url:
        yield url


@pytest.fixture
async def client(sandbox_url: str) -> AsyncIterator[Client]:
    async with connected(sandbox_url) as client:
        await client.delete("ledger")
        yield client


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Hosts the pictures that providers fetch."""
    async with hosting() as host:
        yield host
