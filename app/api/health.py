"""Liveness, readiness with the state of each dependency, and Prometheus metrics."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.accounts.auth import Caller, require
from app.readiness import Health, Readiness, ReadinessCache, scrape
from app.web import problems

router = APIRouter(tags=["operations"])
NOT_READY = {"status": "not_ready", "checks": {"postgres": {"ok": False, "reason": "no reply within 3 seconds"}}}


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Check that the process is alive",
    description="For a liveness probe: it depends on nothing but the process.",
)
async def get_health() -> Health:
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Check that the process and its dependencies are ready",
    description="For a readiness probe, and for people: `checks` has a reason for each dependency that is not usable.",
    responses={
        503: {
            "model": Readiness,
            "description": "Not ready; `checks` names the reasons.",
            "content": {"application/json": {"example": NOT_READY}},
        }
    },
)
async def get_readiness(request: Request, response: Response) -> Readiness:
    cache: ReadinessCache = request.app.state.readiness
    readiness = await cache.get()
    response.status_code = 503 if readiness.status == "not_ready" else 200
    return readiness


# For load balancers that probe with HEAD; not in the document.
router.add_api_route("/healthz", get_health, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/readyz", get_readiness, methods=["HEAD"], include_in_schema=False)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Prometheus metrics",
    description="Of this process, and of the jobs in the database. `docs/operations.md` explains each.",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format."},
        **problems.responses("unauthenticated", "forbidden"),
    },
)
async def get_metrics(request: Request, _caller: Annotated[Caller, Depends(require("metrics:read"))]) -> Response:
    body, content_type = await scrape(request.app.state.resources, request.headers.get("accept"))
    return Response(body, media_type=content_type)
