"""The sandbox upstream: a server that imitates video providers and keeps a ledger of what it charged.

/openai/v1/videos…    OpenAI's Videos API
/sglang/v1/videos…    the same routes as implemented by SGLang Diffusion
/vllm/v1/videos…      … by vLLM-Omni
/newapi/v1/videos…    … by the new-api gateway
/tensorrt/v1/videos…  … by TensorRT-LLM's visual generation
/litellm/v1/videos…   … by LiteLLM's proxy
/runway/v1/…          Runway's tasks
/kling/…              Kling's tasks, with callbacks
/ledger               what was accepted and charged, for an audit
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from app.sandbox.callbacks import Callbacks
from app.sandbox.counts import Counts
from app.sandbox.dialect import Dialect, Sandbox
from app.sandbox.input_files import InputFiles
from app.sandbox.kling import Kling
from app.sandbox.ledger import Ledger
from app.sandbox.lookalikes import LiteLLM, NewAPI, TensorRT
from app.sandbox.openai import OpenAI
from app.sandbox.runway import Runway
from app.sandbox.script import BRACKETS
from app.sandbox.selfhosted import VLLM, SGLang
from app.sandbox.settings import SandboxSettings
from app.sandbox.store import Store
from app.sandbox.video_files import Videos
from app.sandbox.wire import Severable, json_reply

SHUTDOWN_SECONDS = 1
DIALECTS: Sequence[type[Dialect]] = (OpenAI, SGLang, VLLM, NewAPI, TensorRT, LiteLLM, Runway, Kling)


def create_app(settings: SandboxSettings | None = None) -> ASGIApp:
    """The sandbox as an ASGI application. Its state is kept in memory."""
    settings = settings or SandboxSettings()
    videos = Videos(settings.data_dir)
    ledger = Ledger()
    store, callbacks = Store(settings, videos, ledger), Callbacks(settings.callback_secret)
    input_files = InputFiles(lambda: videos.directory)
    sandbox = Sandbox(settings, store, ledger, Counts(), callbacks, input_files)
    dialects: Sequence[Dialect] = [dialect(sandbox) for dialect in DIALECTS]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if not settings.render:
            _ = videos.instant  # rendered at start-up, so that no request waits for it
        yield
        await sandbox.store.forget()
        await sandbox.callbacks.close()
        await sandbox.input_files.close()
        videos.close()

    app = Starlette(
        routes=[
            *(Mount(f"/{dialect.name}", routes=dialect.routes()) for dialect in dialects),
            *_tools(sandbox),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _in_dialect({dialect.name: dialect for dialect in dialects})},
    )
    return Severable(app)


def serve(settings: SandboxSettings, host: str = "127.0.0.1", port: int = 8090) -> None:
    """Run the sandbox until SIGINT or SIGTERM; open streams and renders are aborted within about a second."""
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run()


def _tools(sandbox: Sandbox) -> list[Route]:
    """Routes outside the dialects, without a credential: index, health and ledger."""

    async def index(_request: Request) -> Response:
        brackets = [{"bracket": bracket.example, "meaning": bracket.meaning} for bracket in BRACKETS.values()]
        return json_reply({"service": "filmgate sandbox", "brackets": brackets})

    async def health(_request: Request) -> Response:
        return json_reply({"status": "ok"})

    async def entries(request: Request) -> Response:
        return json_reply({"entries": sandbox.ledger.entries(request.query_params.get("ref"))})

    async def summary(_request: Request) -> Response:
        return json_reply(sandbox.ledger.summary())

    async def forget(_request: Request) -> Response:
        await sandbox.store.forget()
        await sandbox.callbacks.forget()
        sandbox.ledger.forget()
        sandbox.counts.forget()
        return Response(status_code=204)

    return [
        Route("/", index),
        Route("/healthz", health),
        Route("/ledger", entries, methods=["GET"]),
        Route("/ledger", forget, methods=["DELETE"]),
        Route("/ledger/summary", summary),
    ]


def _in_dialect(dialects: Mapping[str, Dialect]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Handle unknown paths and methods in the error format of the dialect that they belong to."""

    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        dialect = dialects.get(request.url.path.split("/")[1])
        if dialect is None:
            return json_reply({"error": error.detail}, error.status_code)
        return dialect.no_route(request, error)

    return handler
