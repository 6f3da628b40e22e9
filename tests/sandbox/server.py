"""The sandbox on a free loopback port, over real HTTP, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvicorn

from app.sandbox import picture
from app.sandbox.main import create_app
from app.sandbox.settings import SandboxSettings

KEY = "sandbox-key"
RUNWAY_VERSION = "2024-11-06"
REFERENCE = "X-Filmgate-Submission"
FINAL_WORDS = {"succeeded", "done", "error", "aborted"}
ENDS = {"completed", "failed", "SUCCEEDED", "FAILED", "CANCELLED", *FINAL_WORDS}
LOOK_AGAIN = 0.02

# The videos are as small as the dialects allow. Without this, rendering them would be most of the suite's CPU time.
picture.CANVAS = 48


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: they belong to the test runner."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(settings: SandboxSettings) -> AsyncIterator[str]:
    """Run a sandbox; gives its base URL."""
    config = uvicorn.Config(
        create_app(settings), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    server = Server(config)
    running = asyncio.create_task(server.serve())
    up = asyncio.create_task(server.is_up.wait())
    await asyncio.wait((running, up), return_when=asyncio.FIRST_COMPLETED)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        up.cancel()


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any


class Client:
    """Talks to a sandbox as a gateway would."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.ask("POST", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", path, **options)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, path, **options) as response:
            body = await response.read()
            decoded = await response.json() if response.content_type == "application/json" else None
            return Answer(response.status, response.headers, body, decoded)

    async def buy(self, prompt: str, dialect: str = "openai", **options: Any) -> str:
        """Create a small video; gives the path of its state."""
        if dialect == "runway":
            order = {"model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2}
            created = await self.post("runway/v1/text_to_video", json=order, **options)
            assert created.status == 200, created.body
            return f"runway/v1/tasks/{created.json['id']}"
        created = await self.post(f"{dialect}/v1/videos", **order_of(dialect, prompt), **options)
        assert created.status in {200, 202}, created.body
        return f"{dialect}/v1/videos/{created.json['id']}"

    async def wait_until(self, path: str, *words: str) -> Answer:
        """Read a state until its status is one of the words, or final."""
        while True:
            answer = await self.get(path)
            if answer.json.get("status") in {*words, *ENDS}:
                return answer
            await asyncio.sleep(LOOK_AGAIN)

    async def wait_for_entry(self, state: str) -> dict[str, Any]:
        """The ledger's only entry, as soon as it is in that state."""
        while True:
            (entry,) = (await self.get("ledger")).json["entries"]
            if entry["state"] == state:
                return dict(entry)
            await asyncio.sleep(LOOK_AGAIN)


def order_of(dialect: str, prompt: str) -> dict[str, Any]:
    """The body of a create at one of the servers with ``/videos``."""
    order = {"prompt": prompt, "size": "64x64", "seconds": "1"}
    if dialect != "vllm":
        return {"json": order}
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in order.items():
        form.add_field(name, value)
    return {"data": form}


@asynccontextmanager
async def connected(url: str, key: str = KEY) -> AsyncIterator[Client]:
    """A client of the sandbox at ``url``."""
    headers = {"Authorization": f"Bearer {key}", "X-Runway-Version": RUNWAY_VERSION}
    # One connection per request: a dropped one is then the request's own, and nobody tries again.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(f"{url}/", headers=headers, connector=connector) as session:
        yield Client(session)
