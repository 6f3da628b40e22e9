"""A running gateway, and the files that callers give."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.accounts.service import KeyService
from tests.support.gateway import Gateway
from tests.support.gateway_fixtures import gateway, plain_logs, sandbox_url, settings

__all__ = ["gateway", "plain_logs", "sandbox_url", "settings"]


@pytest.fixture
async def stranger(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """Another account's client."""
    key = await KeyService(gateway.resources.database).create("strangers", "key")
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, verify=False) as client:
        yield client
