"""An app that has nothing but our middleware and a few routes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from app.settings import ApiSettings
from app.web import middleware, problems

LARGEST = 1024


class Gateway:
    """An app with our middleware, and what its routes got to see."""

    def __init__(self, **settings: Any) -> None:
        self.received: list[bytes] = []
        self.stream_ended = asyncio.Event()
        self.app = FastAPI(redirect_slashes=False)
        self.app.include_router(self._router(), prefix="/v1")
        self.app.add_api_route("/healthz", self._nothing)
        problems.install(self.app)
        middleware.install(self.app, ApiSettings(max_body_bytes=LARGEST, **settings), lambda _: None)

    def _router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/echo/{name}", self._echo, methods=["POST"])
        router.add_api_route("/ignore", self._nothing, methods=["POST"])
        router.add_api_route("/things/{name}", self._nothing)
        router.add_api_route("/asset", self._asset)
        router.add_api_route("/logs", self._log)
        router.add_api_route("/bug", self._bug)
        router.add_api_route("/breaks-off", self._breaks_off)
        router.add_api_route("/stream", self._stream, methods=["GET", "POST"])
        return router

    async def _nothing(self) -> None:
        self.received.append(b"")

    async def _echo(self, request: Request, name: str) -> Response:
        body = await request.body()
        self.received.append(body)
        return Response(body, headers={"x-name": name})

    async def _asset(self) -> Response:
        return Response(b"video", headers={"Cache-Control": "private, max-age=60", "Referrer-Policy": "origin"})

    async def _log(self) -> None:
        structlog.get_logger().info("video stored", context=structlog.contextvars.get_contextvars())

    async def _bug(self) -> None:
        raise ValueError("hunter2")

    async def _breaks_off(self) -> StreamingResponse:
        def chunks() -> Iterable[bytes]:
            yield b"some"
            raise ValueError("hunter2")

        return StreamingResponse(chunks())

    async def _stream(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
                    await asyncio.sleep(0)
            finally:
                self.stream_ended.set()

        return StreamingResponse(chunks())


def access_line(logs: Iterable[Any]) -> dict[str, Any]:
    [line] = [dict(line) for line in logs if line["event"].startswith("request ") and "route" in line]
    return line
