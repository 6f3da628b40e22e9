"""Real stores: a directory, and a bucket on a server that speaks S3. A plugin: every test may ask for its fixtures."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.media.storage import Storage
from app.settings import AssetSettings
from tests.support.s3 import S3, running_s3

#: Tests with a bucket run in one process: the server takes seconds to import.
IN_BUCKET = [pytest.mark.servers, pytest.mark.xdist_group("s3")]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def in_directory(tmp_path: Path) -> AssetSettings:
    """Settings for a store in a directory."""
    return settings_for((tmp_path / "store").as_uri(), tmp_path)


@pytest.fixture
def in_bucket(s3: S3, tmp_path: Path) -> AssetSettings:
    """Settings for a store in a new bucket."""
    return settings_for(f"s3://{s3.new_bucket()}/kept/here", tmp_path, store_options=s3.options)


@pytest.fixture(params=["in_directory", pytest.param("in_bucket", marks=IN_BUCKET)])
def settings(request: pytest.FixtureRequest) -> AssetSettings:
    """Settings for each kind of store."""
    found: AssetSettings = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def storage(settings: AssetSettings) -> Storage:
    return Storage.open(settings)


def settings_for(store: str, directory: Path, **more: Any) -> AssetSettings:
    spool = directory / "spool"
    spool.mkdir(exist_ok=True)
    return AssetSettings.model_validate({"store": store, "spool": spool, "min_free_bytes": 0, **more})


async def in_pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read_all(storage: Storage, key: str, size: int) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, 0, size)])
