"""Fixtures of a gateway that its provider calls back, and what a test needs to call in the provider's name."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from app.ids import Prefix
from app.infra.queue import Lane
from app.sandbox.settings import SandboxSettings
from app.settings import ApiSettings, Settings
from tests.sandbox.server import serving
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.http_proxy import Between, Meddle, behind, between
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver, inner

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
ORDER: Mapping[str, Any] = {"model": "kling/kling-3.0", "seconds": 3, "size": "1280x720"}
KLING = "sandbox-kling"
CALLBACKS = "/v1/callbacks/"
#: Kling's requests: to buy, to look at a task, to look one up by our reference; and its answer when there is none.
BUY, READ, LOOK_UP, NO_TASKS = "/text-to-video/", "?task_ids=", "?external_task_ids=", Say('{"code": 0, "data": []}')


@pytest.fixture(scope="session")
async def signing_sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A sandbox that signs its callbacks."""
    directory = tmp_path_factory.mktemp("signing")
    async with serving(SandboxSettings(data_dir=directory, render_seconds=0.1, callback_secret=SECRET)) as url:
        yield url


@pytest.fixture
async def kling(signing_sandbox: str) -> AsyncIterator[Between]:
    """A proxy between the gateway and that provider."""
    async with between(signing_sandbox) as running:
        yield running


@pytest.fixture
async def front() -> AsyncIterator[Between]:
    """Our public address."""
    async with between() as running:
        yield running


@pytest.fixture
def reachable(settings: Settings, sandbox_url: str, kling: Between, front: Between) -> Settings:
    """Of a gateway that its provider can call back, and that looks by itself once in an hour."""
    connection = settings.connections[KLING].model_copy(
        update={
            "base_url": str(settings.connections[KLING].base_url).replace(sandbox_url, kling.target),
            "callback_secret": SecretStr(SECRET),
        }
    )
    api = ApiSettings.model_validate({**settings.api.model_dump(), "public_url": front.url})
    # A loaded machine may take seconds between a claim and its request: then nothing is sent.
    jobs = settings.jobs.model_copy(update={"submit_timeout": 10})
    called = settings.model_copy(update={"api": api, "connections": {KLING: connection}, "jobs": jobs})
    return behind(called, kling, poll_interval=3600)


@asynccontextmanager
async def opened(settings: Settings, kling: Between, front: Between, *, workers: int = 0) -> AsyncIterator[Gateway]:
    """The gateway behind its public address."""
    async with running_gateway(settings, kling.target, workers=workers) as gateway:
        front.target = gateway.url
        await gateway.sandbox.delete("/ledger")
        yield gateway


@pytest.fixture
async def quiet(reachable: Settings, kling: Between, front: Between) -> AsyncIterator[Gateway]:
    """One that nobody calls back but the test, and without workers."""
    front.on("POST", CALLBACKS, Meddle.DROP)
    async with opened(reachable, kling, front) as gateway:
        yield gateway


@pytest.fixture
async def caller(quiet: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """Whoever calls back: without a key."""
    async with httpx2.AsyncClient(base_url=quiet.url, verify=False) as client:
        yield client


def body_of(remote_id: str, status: str = "succeeded") -> bytes:
    """What Kling says, as far as anybody reads it."""
    return json.dumps({"id": remote_id, "status": status, "message": ""}).encode()


def signed(body: bytes, secret: str = SECRET, *, at: datetime | None = None) -> dict[str, str]:
    """The headers of a callback that was signed at some time."""
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign("1234", at, body.decode())
    return {"webhook-id": "1234", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


class Bought:
    """A job with one purchase, and the path that its provider was told to call."""

    def __init__(self, gateway: Gateway, job: dict[str, Any], submission: dict[str, Any]) -> None:
        self._gateway = gateway
        self.public_id: str = job["id"]
        self.id = inner(job["id"])
        self.submission: str = submission["id"]
        url = gateway.resources.engine.callbacks.of(KLING, inner(submission["id"], Prefix.SUBMISSION))
        assert url is not None
        self.path = CALLBACKS + url.partition(CALLBACKS)[2]

    async def job(self) -> dict[str, Any]:
        return await self._gateway.get(self.public_id)

    async def rows(self) -> list[dict[str, Any]]:
        """Its ledger."""
        return await self._gateway.submissions(self.public_id)

    async def remote_id(self) -> str:
        """What the provider calls it, from the provider's own books."""
        books = await self._gateway.sandbox.get("/ledger", params={"ref": self.submission})
        (entry,) = books.json()["entries"]
        return str(entry["remote_id"])

    async def tell(self, client: httpx2.AsyncClient, remote_id: str, status: str = "succeeded") -> None:
        """A callback that is as it must be."""
        body = body_of(remote_id, status)
        reply = await client.post(self.path, content=body, headers=signed(body))
        assert (reply.status_code, reply.json()) == (200, {"status": "noted"})


async def bought(gateway: Gateway, hands: LaneDriver, prompt: str = PROMPT, **fields: Any) -> Bought:
    """A job whose paid request was sent."""
    job = await gateway.create(prompt, **{**ORDER, **fields})
    await hands.work(Lane.SUBMIT)
    (submission,) = await gateway.submissions(job["id"])
    return Bought(gateway, job, submission)
