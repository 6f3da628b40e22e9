"""Minimal servers that show the maximum throughput of uvicorn and of FastAPI on it."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

BODY = b'{"status":"ok"}'
MEBIBYTE = 1024 * 1024


async def bare(scope: Scope, _receive: Receive, send: Send) -> None:
    """A bare ASGI application; lifespan is disabled on the command line."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class JobRequest(BaseModel):
    """About the size of a request to create a job."""

    model: str
    prompt: str
    seconds: int
    size: str
    metadata: dict[str, str]
    webhook_url: str


class Job(JobRequest):
    """About the size of a job of the API."""

    id: str
    status: str
    progress: int
    cost: dict[str, str | None]
    adjustments: list[dict[str, Any]]
    created_at: str
    deadline_at: str


framework = FastAPI(openapi_url=None)


@framework.post("/", status_code=202)
async def create(body: JobRequest) -> Job:
    """Validate a body and return a validated response; no I/O."""
    return Job(
        **body.model_dump(),
        id="job_01h455vb4pex5vsknk084sn02q",
        status="queued",
        progress=0,
        cost={"estimated": "0.04", "charged": None, "certainty": "none"},
        adjustments=[],
        created_at="2026-11-22T17:00:00Z",
        deadline_at="2026-11-22T18:00:00Z",
    )


class LargeChunks(FileResponse):
    """Starlette's file response with chunks of 1 MiB."""

    chunk_size = MEBIBYTE


@framework.get("/healthz")
async def health() -> dict[str, str]:
    """The readiness probe of the harness."""
    return {}


@framework.get("/file")
async def file(path: str) -> LargeChunks:
    """Serve any file of this machine without authentication: only for the harness on loopback."""
    return LargeChunks(path)
