"""The smallest servers there are: what uvicorn, and FastAPI on it, can do at most. Ceilings, not rivals."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

BODY = b'{"status":"ok"}'
MEBIBYTE = 1024 * 1024


async def bare(scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI and nothing else; lifespan is switched off on the command line."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class Order(BaseModel):
    """As large as a create of ours."""

    model: str
    prompt: str
    seconds: int
    size: str
    metadata: dict[str, str]
    webhook_url: str


class Job(Order):
    """As large as a job of ours, about."""

    id: str
    status: str
    progress: int
    cost: dict[str, str | None]
    adjustments: list[dict[str, Any]]
    created_at: str
    deadline_at: str


framework = FastAPI(openapi_url=None)


@framework.post("/", status_code=202)
async def create(order: Order) -> Job:
    """Validate a body, write a validated answer; no I/O."""
    return Job(
        **order.model_dump(),
        id="job_01h455vb4pex5vsknk084sn02q",
        status="queued",
        progress=0,
        cost={"estimated": "0.04", "charged": None, "certainty": "none"},
        adjustments=[],
        created_at="2026-11-22T17:00:00Z",
        deadline_at="2026-11-22T18:00:00Z",
    )


class LargeChunks(FileResponse):
    """Starlette's own answer for a file, in chunks of 1 MiB."""

    chunk_size = MEBIBYTE


@framework.get("/healthz")
async def health() -> dict[str, str]:
    """Ready."""
    return {}


@framework.get("/file")
async def file(path: str) -> LargeChunks:
    """A file of this machine, to whoever asks: for the harness on loopback only."""
    return LargeChunks(path)
