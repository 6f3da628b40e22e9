"""Health and metrics of a worker, without authentication: for the operator's network only."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.readiness import Health, ReadinessCache, scrape
from app.resources import Resources
from app.settings import Settings
from app.web.limits import bounded

#: Limit for the head of a request, and for a client that reads nothing.
CLIENT_SECONDS = 10


def routes(resources: Resources) -> list[Route]:
    """``/healthz``, ``/readyz`` and ``/metrics``, as the API has them."""

    cache = ReadinessCache(resources)

    async def healthz(_: Request) -> Response:
        return JSONResponse(Health().model_dump())

    async def readyz(_: Request) -> Response:
        readiness = await cache.get()
        return JSONResponse(readiness.model_dump(), 503 if readiness.status == "not_ready" else 200)

    async def figures(request: Request) -> Response:
        body, content_type = await scrape(resources, request.headers.get("accept"))
        return Response(body, media_type=content_type)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", figures)]


class HealthServer(uvicorn.Server):
    """Serves the health routes in the event loop of the lanes."""

    def __init__(self, resources: Resources, settings: Settings) -> None:
        config = uvicorn.Config(
            Starlette(routes=routes(resources)),
            host=settings.worker.host,
            port=settings.worker.port,
            http=bounded(head_timeout=CLIENT_SECONDS, write_timeout=CLIENT_SECONDS),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker, which drains first."""
        yield
