"""The HTTP clients of the adapters, and a sandbox to talk to."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from app.providers.http_clients import Clients
from app.sandbox.settings import SandboxSettings
from tests.sandbox.server import serving

#: What the sandbox signs its callbacks with.
CALLBACK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


@pytest.fixture(scope="session")
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running sandbox: its URL, and its own books."""

    url: str
    _session: aiohttp.ClientSession

    async def purchases(self, reference: str) -> list[dict[str, Any]]:
        """What it accepted of one submission."""
        async with self._session.get(f"{self.url}/ledger", params={"ref": reference}) as response:
            return list((await response.json())["entries"])

    async def forget(self) -> None:
        async with self._session.delete(f"{self.url}/ledger"):
            pass


@pytest.fixture(scope="session")
async def _upstream() -> AsyncIterator[Upstream]:
    settings = SandboxSettings(render=False, callback_secret=CALLBACK_SECRET)
    async with serving(settings) as url, aiohttp.ClientSession() as session:
        yield Upstream(url, session)


@pytest.fixture
async def upstream(_upstream: Upstream) -> Upstream:
    """A sandbox that has accepted nothing. Its renders are finished at once."""
    await _upstream.forget()
    return _upstream
