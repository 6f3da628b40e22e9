"""Start a complete local stack, create one video, verify its webhook, stop the stack."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from aiohttp import web
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from app.cli._options import Model, Seconds, Size, job_request
from app.cli.generate import watch
from app.client import ApiError, Client
from app.embedded.processes import LOCALHOST
from app.embedded.stack import Stack
from app.embedded.workspace import Ports, Workspace
from app.jobs.api.requests import JobRequest
from app.terminal import MESSAGES, RESULTS, CommandError, fail, run, say
from app.web.field_errors import explain

ROOT = Path(".filmgate") / "demo"
TIMEOUT = 300
WEBHOOK_TIMEOUT = 30
EXPECTED_EVENT = "job.succeeded"
DEFAULT_PROMPT = "a purple elephant dancing on a blue beach ball"


@dataclass(frozen=True, slots=True)
class Received:
    """One received webhook; the names of ``headers`` are in lower case."""

    headers: dict[str, str]
    body: bytes


def demo(prompt: str = DEFAULT_PROMPT, seconds: Seconds = None, size: Size = None, model: Model = "default") -> None:
    body = job_request(prompt, model, seconds, size)
    _check(body)
    run(run_demo(body))


def _check(body: Mapping[str, Any]) -> None:
    """End the command as wrong usage if the API would reject the request, before a stack is started for it."""
    try:
        JobRequest.model_validate(body)
    except ValidationError as error:
        in_body = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        found = explain(RequestValidationError(in_body, body=body))
        fail("\n".join(f"{item.field}: {item.message}" for item in found), 2)


async def run_demo(body: Mapping[str, Any], root: Path = ROOT) -> None:
    """Create one video on a temporary stack and verify the whole path to its webhook.

    Raises:
        CommandError: a step failed; the stack is already stopped.
    """
    stack = Stack(Workspace(root), Ports.free())
    async with stack.running(lambda text: say(MESSAGES, f"{text} …")):
        try:
            async with asyncio.timeout(TIMEOUT):
                lines = await stack.guard(_make_video(stack, body, root))
        except TimeoutError:
            raise CommandError(f"no video after {TIMEOUT} s; see the logs in {root / 'logs'}") from None
    say(RESULTS, *lines)


async def _make_video(stack: Stack, body: Mapping[str, Any], root: Path) -> list[str]:
    async with Client(stack.url, await stack.api_key()) as client, receiver() as (url, inbox):
        secret = await client.webhook_secret()
        job = await watch(client, await client.create_job({**body, "webhook_url": url}, str(uuid.uuid4())))
        event_id = await _verified(inbox, secret)
        file = root / f"{job.id}.mp4"
        assert job.video_id is not None
        await client.download(job.video_id, file)
        return [
            f"job: {job.id}",
            f"webhook: verified {EXPECTED_EVENT} ({event_id})",
            f"video: {file} ({await asyncio.to_thread(describe, file)})",
        ]


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, asyncio.Queue[Received]]]:
    """Run a webhook receiver on loopback; yields its URL and the received webhooks."""
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
    """Wait for the expected event and verify the signature of every webhook. Returns its id."""
    webhook = Webhook(secret)
    try:
        async with asyncio.timeout(WEBHOOK_TIMEOUT):
            while True:
                received = await inbox.get()
                if webhook.verify(received.body, received.headers)["type"] == EXPECTED_EVENT:
                    return received.headers["webhook-id"]
    except TimeoutError:
        raise ApiError(f"the webhook {EXPECTED_EVENT} did not arrive within {WEBHOOK_TIMEOUT} s") from None
    except WebhookVerificationError as error:
        raise ApiError(f"a webhook has an invalid signature: {error}") from error


def describe(file: Path) -> str:
    """Codec, dimensions, duration and size of a video, read from the file."""
    with av.open(str(file)) as container:
        video = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        picture = f"{video.codec_context.name}, {video.width}x{video.height}"
    return f"{picture}, {seconds:.1f} s, {file.stat().st_size} bytes"
