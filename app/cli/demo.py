"""Start everything, order one film, verify its webhook, stop everything."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from aiohttp import web
from rich.console import Console
from standardwebhooks import Webhook, WebhookVerificationError

from app.cli._options import Model, Seconds, Size, order_of
from app.cli.generate import watch
from app.client import ApiError, Client
from app.embedded.processes import LOCALHOST
from app.embedded.stack import Stack
from app.embedded.workspace import Ports, Workspace
from app.terminal import CommandError, run, say

ROOT = Path(".filmgate") / "demo"
TIMEOUT = 300
WEBHOOK_TIMEOUT = 30
AWAITED = "job.succeeded"
DEFAULT_PROMPT = "a purple elephant dancing on a blue beach ball"


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook as it came in; the names of ``headers`` in lower case."""

    headers: dict[str, str]
    body: bytes


def demo(prompt: str = DEFAULT_PROMPT, seconds: Seconds = None, size: Size = None, model: Model = "default") -> None:
    run(run_demo(order_of(prompt, model, seconds, size), Console()))


async def run_demo(order: Mapping[str, Any], console: Console, root: Path = ROOT) -> None:
    """Order one film on a stack of its own, and show that all of it works.

    Raises:
        CommandError: of any kind; everything is stopped by then.
    """
    stack = Stack(Workspace(root), Ports.free())
    async with stack.running(lambda text: say(console, f"{text} …")):
        try:
            async with asyncio.timeout(TIMEOUT):
                lines = await stack.guard(_order(stack, order, root, console))
        except TimeoutError:
            raise CommandError(f"there was no film after {TIMEOUT} s; {root / 'logs'} may say why") from None
    say(console, *lines)


async def _order(stack: Stack, order: Mapping[str, Any], root: Path, console: Console) -> list[str]:
    async with Client(stack.url, await stack.api_key()) as client, receiver() as (url, inbox):
        secret = await client.webhook_secret()
        job = await watch(client, await client.create_job({**order, "webhook_url": url}, str(uuid.uuid4())), console)
        event_id = await _verified(inbox, secret)
        file = root / f"{job.id}.mp4"
        assert job.film_id is not None
        await client.download(job.film_id, file)
        return [
            f"job: {job.id}",
            f"webhook: verified {AWAITED} ({event_id})",
            f"film: {file} ({await asyncio.to_thread(describe, file)})",
        ]


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, asyncio.Queue[Received]]]:
    """A web server on loopback that takes webhooks: its URL, and what came in."""
    inbox: asyncio.Queue[Received] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        inbox.put_nowait(Received(headers, await request.read()))
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOCALHOST, 0).start()
        yield f"http://{LOCALHOST}:{runner.addresses[0][1]}/", inbox
    finally:
        await runner.cleanup()


async def _verified(inbox: asyncio.Queue[Received], secret: str) -> str:
    """The id of the awaited event, once it has come in with a good signature."""
    webhook = Webhook(secret)
    try:
        async with asyncio.timeout(WEBHOOK_TIMEOUT):
            while True:
                received = await inbox.get()
                if webhook.verify(received.body, received.headers)["type"] == AWAITED:
                    return received.headers["webhook-id"]
    except TimeoutError:
        raise ApiError(f"the webhook {AWAITED} did not come within {WEBHOOK_TIMEOUT} s") from None
    except WebhookVerificationError as error:
        raise ApiError(f"a webhook came with a bad signature: {error}") from error


def describe(file: Path) -> str:
    """Codec, size, length and bytes of a film, as read from the film itself."""
    with av.open(str(file)) as container:
        video = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        picture = f"{video.codec_context.name}, {video.width}x{video.height}"
    return f"{picture}, {seconds:.1f} s, {file.stat().st_size} bytes"
