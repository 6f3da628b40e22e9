"""Real stores: a directory, and a bucket on a server that speaks S3."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from app.accounts.auth import Authenticator
from app.accounts.service import KeyService
from app.assets.records import Incoming, StoredAsset
from app.assets.router import router
from app.assets.service import AssetService
from app.ids import new_id
from app.infra.db import Database
from app.media.storage import Storage
from app.settings import AssetSettings
from app.web import problems
from tests.support.sample_videos import video
from tests.support.stores import in_pieces

URL_KEY = bytes(range(32))
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class HeldClock:
    """A clock that a test moves: ``clock.now += timedelta(...)``."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def assets(database: Database, in_directory: AssetSettings, clock: HeldClock) -> AssetService:
    """The service, with its store in a directory."""
    return service_for(database, in_directory, clock)


@pytest.fixture
async def stored(database: Database, assets: AssetService, account_id: UUID) -> list[StoredAsset]:
    """A video and its poster."""
    return await keep(database, assets, account_id)


@pytest.fixture
async def key(database: Database) -> tuple[str, UUID]:
    """An API key that may read assets, and its account."""
    made = await KeyService(database).create("the owner", "test", ["assets:read"])
    return made.text, made.account_id


@pytest.fixture
def app(database: Database, assets: AssetService) -> FastAPI:
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    problems.install(app)
    app.state.auth = Authenticator(database)
    app.state.assets = assets
    return app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


def service_for(
    database: Database, settings: AssetSettings, clock: Callable[[], datetime], public_url: str | None = None
) -> AssetService:
    return AssetService(
        database, Storage.open(settings), settings, url_keys=[URL_KEY], public_url=public_url, clock=clock
    )


def incoming(content: bytes | AsyncIterator[bytes], **changes: Any) -> Incoming:
    """A video on its way in that is what was ordered, if it is ``video()``."""
    values: dict[str, Any] = {
        "job_id": new_id(),
        "account_id": new_id(),
        "chunks": in_pieces(content) if isinstance(content, bytes) else content,
        "expected_bytes": len(content) if isinstance(content, bytes) else None,
        "seconds": 2,
        "width": 160,
        "height": 96,
    }
    return Incoming(**values | changes)


async def keep(database: Database, assets: AssetService, account_id: UUID, content: bytes = b"") -> list[StoredAsset]:
    """Take a video in and record it: the video, then the poster."""
    taken = await assets.take_in(incoming(content or video(), account_id=account_id))
    async with database.begin() as conn:
        return await assets.record(conn, taken)
