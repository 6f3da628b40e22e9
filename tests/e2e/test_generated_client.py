"""A client generated from the OpenAPI document by a public generator orders a video and downloads it."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.gateway import PROMPT, Gateway

pytestmark = pytest.mark.servers

DOCUMENT = Path(__file__).parents[2] / "openapi" / "gateway.json"


@pytest.fixture(scope="module")
async def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the generated package ``filmgate_client``."""
    directory = tmp_path_factory.mktemp("generated")
    config = DOCUMENT.with_name("python-client.yaml")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openapi_python_client", "generate"),
        *("--path", str(DOCUMENT), "--config", str(config)),
        *("--meta", "none", "--output-path", str(directory / "filmgate_client"), "--fail-on-warning"),
        # It formats what it writes with ruff.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return directory


async def test_a_generated_client_orders_and_downloads_a_video(
    gateway: Gateway, generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(generated))
    package = importlib.import_module("filmgate_client")
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    client: Any = package.AuthenticatedClient(base_url=gateway.url, token=key)

    def operation(module: str) -> ModuleType:
        return importlib.import_module(f"filmgate_client.api.{module}")

    models = importlib.import_module("filmgate_client.models")
    order = models.JobCreate(prompt=PROMPT, model="sandbox/video", seconds=1, size="128x96")
    async with client:
        job = await operation("jobs.create_job").asyncio(client=client, body=order, idempotency_key="generated-1")
        while job.status not in {"succeeded", "failed", "canceled"}:
            job = await operation("jobs.get_job").asyncio(job.id, client=client, prefer="wait=30")
        assert job.status == "succeeded"
        video = await operation("assets.get_asset").asyncio(job.assets.video.id, client=client)
        content = await operation("assets.get_asset_content").asyncio_detailed(video.id, client=client)
        assert len(content.parsed.payload.read()) == video.size_bytes
        missing = await operation("jobs.get_job").asyncio("job_nothing", client=client)
        assert (type(missing).__name__, missing.code) == ("Problem", "not_found")
