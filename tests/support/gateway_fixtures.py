"""Fixtures of a running product: import them in a conftest.py."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import structlog

from app.accounts.service import KeyService
from app.infra.db import Database
from app.sandbox.settings import SandboxSettings
from app.settings import Settings
from tests.sandbox.server import serving
from tests.support.gateway import Gateway, running_gateway
from tests.support.settings import gateway_settings


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Nothing below a warning: a gateway has much to say."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
async def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A sandbox that renders real, small videos in a moment."""
    settings = SandboxSettings(data_dir=tmp_path_factory.mktemp("sandbox"), render_seconds=0.1)
    async with serving(settings) as url:
        yield url


@pytest.fixture
def settings(database: Database, postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path) -> Settings:
    """Of a gateway on an empty database."""
    del database
    return gateway_settings(postgres_url=postgres_url, redis_url=redis_url, sandbox_url=sandbox_url, directory=tmp_path)


@pytest.fixture
async def gateway(settings: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    """API, one worker, and a sandbox with empty books."""
    async with running_gateway(settings, sandbox_url) as running:
        await running.sandbox.delete("/ledger")
        yield running


@pytest.fixture
async def stranger(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """Another account's client."""
    key = await KeyService(gateway.resources.database).create("strangers", "key")
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, verify=False) as client:
        yield client
