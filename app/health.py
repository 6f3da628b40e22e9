"""Liveness, readiness with a reason per dependency, and the figures for Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from app import metrics, problems
from app.accounts.auth import Caller, require
from app.db import lacks_tables
from app.jobs import repository, schedule
from app.metrics import Levels
from app.resources import Resources

CHECK_SECONDS = 3

log = structlog.get_logger()


class Check(BaseModel):
    """One dependency."""

    ok: bool
    reason: str | None = Field(default=None, description="Why it is not usable, for the operator.")


class Health(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether the process can do its work, and if not, why."""

    status: Literal["ready", "degraded", "not_ready"] = Field(
        description="`degraded`: it works, more slowly or not wholly (Redis away: jobs are found by the sweep)."
    )
    checks: dict[str, Check]


router = APIRouter(tags=["operations"])


@router.get("/healthz", operation_id="get_health", summary="Is the process alive?")
async def get_health() -> Health:
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can the process do its work?",
    responses={503: {"model": Readiness, "description": "Not ready; `checks` says why."}},
)
async def get_readiness(request: Request, response: Response) -> Readiness:
    readiness = await readiness_of(request.app.state.resources)
    response.status_code = 503 if readiness.status == "not_ready" else 200
    return readiness


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format."},
        **problems.responses("unauthenticated", "forbidden"),
    },
)
async def get_metrics(request: Request, _caller: Annotated[Caller, Depends(require("metrics:read"))]) -> Response:
    return await _metrics(request, request.app.state.resources)


def worker_routes(resources: Resources) -> list[Route]:
    """The same three for a worker, on the operator's own network."""

    async def healthz(_: StarletteRequest) -> StarletteResponse:
        return JSONResponse(Health().model_dump())

    async def readyz(_: StarletteRequest) -> StarletteResponse:
        readiness = await readiness_of(resources)
        return JSONResponse(readiness.model_dump(), 503 if readiness.status == "not_ready" else 200)

    async def figures(request: StarletteRequest) -> StarletteResponse:
        return await _metrics(request, resources)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", figures)]


async def readiness_of(resources: Resources) -> Readiness:
    """Ask every dependency, all at once, each within a bounded time."""

    async def postgres() -> None:
        async with resources.database.read() as connection:
            await connection.execute(text("SELECT 1 FROM schedule LIMIT 1"))

    async def redis() -> None:
        await resources.redis.ping()

    async def storage() -> None:
        await resources.assets.check()

    names = ("postgres", "redis", "storage")
    results = await asyncio.gather(_check(postgres), _check(redis), _check(storage))
    checks = dict(zip(names, results, strict=True))
    if not checks["postgres"].ok:
        return Readiness(status="not_ready", checks=checks)
    return Readiness(status="ready" if all(check.ok for check in results) else "degraded", checks=checks)


async def _check(probe: Callable[[], Awaitable[None]]) -> Check:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await probe()
    except TimeoutError:
        return Check(ok=False, reason=f"no answer within {CHECK_SECONDS} seconds")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the reason
        log.warning("dependency not usable", probe=probe.__name__, error=repr(error))
        if lacks_tables(error):
            return Check(ok=False, reason="the tables are not there; run filmgate migrate")
        # Our own errors have a message that anybody may read; what a driver says may hold addresses.
        return Check(ok=False, reason=getattr(error, "message", None) or type(error).__name__)
    return Check(ok=True)


async def _metrics(request: StarletteRequest, resources: Resources) -> StarletteResponse:
    async def measure() -> Levels:
        async with resources.database.read() as connection:
            jobs = await repository.counts(connection)
            ages = await schedule.oldest_overdue(connection)
        return Levels(
            jobs={state.value: number for state, number in jobs.items()},
            queue_age={lane.value: seconds for lane, seconds in ages.items()},
        )

    body, content_type = await metrics.scrape(request.headers.get("accept"), measure)
    return StarletteResponse(body, media_type=content_type)
