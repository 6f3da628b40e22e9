"""The API process."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from app.accounts.auth import Authenticator
from app.accounts.limits import PerAccount
from app.api import docs, health, openapi
from app.assets.router import router as assets_router
from app.files.router import inputs_router
from app.files.router import router as files_router
from app.infra import logs
from app.infra.ports import check_free
from app.infra.queue import RedisBell, open_redis
from app.jobs.api.callback_router import router as callbacks_router
from app.jobs.api.router import router as jobs_router
from app.providers.router import router as models_router
from app.readiness import ReadinessCache
from app.resources import Resources, freeze_gc, warn_unused_credentials
from app.settings import Settings, SettingsError
from app.web import middleware, problems
from app.web.forwarded import Forwarded
from app.web.limits import bounded
from app.web.uploads import MULTIPART, media_type
from app.webhooks.router import router as webhooks_router

#: The problems that any request may end in.
ANYWHERE = (
    "malformed_request",
    "headers_too_large",
    "body_timeout",
    "body_too_large",
    "internal_error",
    "unavailable",
)
#: A client that reads nothing for this long is disconnected.
WRITE_SECONDS = 30

log = structlog.get_logger()


def describe(*, serve_docs: bool = True) -> FastAPI:
    """The application without resources: routes, error handlers and the OpenAPI document."""
    app = FastAPI(
        **openapi.DESCRIPTION,
        lifespan=_lifespan,
        openapi_url="/openapi.json" if serve_docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the Host header
        telemetry={"tracing": False, "metrics": False},
    )
    for router in (
        jobs_router,
        files_router,
        inputs_router,
        assets_router,
        models_router,
        webhooks_router,
        callbacks_router,
    ):
        app.include_router(router, prefix="/v1", responses=problems.responses(*ANYWHERE))
    app.include_router(health.router, responses=problems.responses(*ANYWHERE))
    docs.install(app, reference=serve_docs)
    problems.install(app)
    openapi.install(app)
    return app


def create_app(settings: Settings) -> FastAPI:
    """The application; its lifespan opens and closes the resources."""
    app = describe(serve_docs=settings.api.docs)
    app.state.settings = settings
    app.state.streams = PerAccount(settings.api.streams_per_account, "event streams")
    app.state.uploads = PerAccount(settings.files.uploads_per_account, "uploads")
    app.state.waits = PerAccount(settings.api.waits_per_account, "waiting requests")
    middleware.install(app, settings.api, _account_of, _streamed)
    return app


def _streamed(scope: Scope) -> bool:
    """Whether a request is an upload: its route receives it as it comes."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path != "/v1/files" or scope["method"] != "POST":
        return False
    return media_type(Headers(scope=scope).get("content-type", "")) == MULTIPART


def _account_of(scope: Scope) -> str | None:
    auth: Authenticator = scope["app"].state.auth
    account_id = auth.known(Headers(scope=scope).get("authorization"))
    return str(account_id) if account_id else None


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    bell = RedisBell(open_redis(settings.redis))
    async with Resources.open(settings, bell, process="api") as resources:
        app.state.resources = resources
        app.state.database = resources.database
        app.state.auth = resources.auth
        app.state.jobs = resources.jobs
        app.state.callbacks = resources.callbacks
        app.state.assets = resources.assets
        app.state.files = resources.files
        app.state.webhooks = resources.webhooks
        app.state.events = resources.events
        app.state.registry = resources.registry
        app.state.readiness = ReadinessCache(resources)
        bell.start()
        resources.events.start()
        try:
            yield
        finally:
            await resources.events.close()
            await bell.close()


class Server(uvicorn.Server):
    """On shutdown, ends long responses first (event streams, `Prefer: wait`): their clients reconnect."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.state.events.release()
        await super().shutdown(sockets)


def configuration(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """The settings of uvicorn; every wait for a client has a limit."""
    return uvicorn.Config(
        Forwarded(app, settings.api.trusted_proxies, settings.api.path_prefix),
        host=settings.api.host,
        port=settings.api.port,
        loop="uvloop",
        ws="none",
        proxy_headers=False,  # Forwarded does it
        http=bounded(
            head_timeout=settings.api.body_timeout, write_timeout=WRITE_SECONDS, prefix=settings.api.path_prefix
        ),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.api.keep_alive),
        timeout_graceful_shutdown=int(settings.api.shutdown_grace),
    )


async def _check_resources(settings: Settings) -> None:
    """Open all resources once, before uvicorn: inside its lifespan a settings error would end in a traceback.

    An API that may not write, where no files are given, still serves all else.
    """
    redis = open_redis(settings.redis)
    async with Resources.open(settings, RedisBell(redis), process="api") as resources:
        try:
            resources.files.prepare()
        except SettingsError as error:
            log.warning("files of callers cannot be received by this process", reason=str(error))
        await redis.aclose()


def serve(settings: Settings) -> None:
    """Run an API process until it is stopped by a signal.

    Raises:
        SettingsError: the configuration names something that does not exist, or the port is taken.
    """
    check_free("api.port", settings.api.host, settings.api.port)
    logs.setup(settings, process="api")
    warn_unused_credentials(settings)
    asyncio.run(_check_resources(settings))
    app = create_app(settings)
    freeze_gc()
    Server(app, configuration(app, settings)).run()
