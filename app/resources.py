"""What a process holds open, and the services built on it: the same for the API and the worker."""

import gc
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from app.accounts.auth import Authenticator
from app.assets.service import AssetService
from app.assets.storage import Storage
from app.events.service import EventService
from app.infra.db import Database
from app.infra.egress import GuardedClient
from app.infra.encryption import Sealer
from app.infra.queue import Bell, Redis, open_redis
from app.jobs.api.acceptance import Acceptance
from app.jobs.api.callbacks import CallbackService
from app.jobs.api.forecast import Forecast
from app.jobs.api.service import JobService
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db.render_times import RenderTimes
from app.jobs.engine.context import Workbench
from app.jobs.engine.poller import Poller
from app.jobs.engine.reconciler import Watcher
from app.jobs.engine.resolver import Resolver
from app.jobs.engine.storer import Storer
from app.jobs.engine.submitter import Submitter
from app.jobs.transitions import Recorder
from app.providers.registry import Registry
from app.providers.transport import Clients
from app.retention import Retention
from app.settings import Settings, callback_variable, credential_variable
from app.webhooks.delivery import Deliverer
from app.webhooks.service import WebhookService

SIGNED_URLS = "signed asset URLs"
CALLBACK_URLS = "callback URLs"
#: What a frozen process holds must not hold up our callers: they are told to ask again.
LONGEST_LOCK_SECONDS = 1
CREDENTIAL = re.compile(r"FILMGATE_CONNECTION_\w+_(API_KEY|CALLBACK_SECRET)")

log = structlog.get_logger()


def warn_of_strays(settings: Settings) -> None:
    """Name the variables that hold a secret of a connection that is not configured: misspelt, perhaps."""
    known = {variable(name) for name in settings.connections for variable in (credential_variable, callback_variable)}
    if strays := sorted(name for name in os.environ if CREDENTIAL.fullmatch(name) and name not in known):
        log.warning("credentials of no connection; check the names", variables=strays)


def settle() -> None:
    """Tell the garbage collector that what a process has loaded stays, so that it never looks through it again.

    Each full collection stopped the API for a tenth of a second before: it was most of the slowest percent of requests.
    What requests leave behind is hardly ever a cycle, so that it is enough to look for those now and then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@dataclass(frozen=True, slots=True)
class Steps:
    """Who advances jobs, lane by lane."""

    submitter: Submitter
    resolver: Resolver
    poller: Poller
    storer: Storer
    watcher: Watcher


@dataclass(frozen=True, slots=True)
class Resources:
    """Opened once at the door, closed at the end."""

    settings: Settings
    database: Database
    redis: Redis
    registry: Registry
    auth: Authenticator
    events: EventService
    webhooks: WebhookService
    assets: AssetService
    jobs: JobService
    callbacks: CallbackService
    times: RenderTimes
    bench: Workbench
    steps: Steps
    deliverer: Deliverer
    retention: Retention

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, bell: Bell, *, process: str) -> AsyncIterator["Resources"]:
        """Everything a process needs. Connections are made when they are first used.

        Raises:
            SettingsError: the configuration names something that does not exist.
        """
        async with AsyncExitStack() as stack:
            database = Database.open(
                settings.database,
                application=f"filmgate {process}",
                lock_timeout=LONGEST_LOCK_SECONDS if process == "api" else 0,
            )
            stack.push_async_callback(database.close)
            redis = open_redis(settings.redis)
            stack.push_async_callback(redis.aclose)
            clients = Clients(connections=settings.worker.polls + settings.worker.stores)
            stack.push_async_callback(clients.close)
            guarded = GuardedClient(settings.webhooks)
            stack.push_async_callback(guarded.close)
            resources = cls._build(settings, bell, database=database, redis=redis, clients=clients, guarded=guarded)
            stack.callback(resources.assets.close)
            yield resources

    @classmethod
    def _build(
        cls,
        settings: Settings,
        bell: Bell,
        *,
        database: Database,
        redis: Redis,
        clients: Clients,
        guarded: GuardedClient,
    ) -> "Resources":
        sealer = Sealer(settings.secret_key.get_secret_value())
        public_url = str(settings.api.public_url) if settings.api.public_url else None
        registry = Registry.open(settings, clients)
        storage = Storage.open(settings.assets)
        events = EventService(database)
        webhooks = WebhookService(database, sealer, settings.webhooks)
        assets = AssetService(
            database,
            storage,
            settings.assets,
            url_key=sealer.derive(SIGNED_URLS),
            public_url=public_url,
        )
        recorder = Recorder(webhooks)
        urls = CallbackUrls(sealer.derive(CALLBACK_URLS), public_url)
        times = RenderTimes(database)
        bench = Workbench(database, registry, recorder, bell, settings.jobs, settings.worker.lease, urls)
        return cls(
            settings=settings,
            database=database,
            redis=redis,
            registry=registry,
            auth=Authenticator(database),
            events=events,
            webhooks=webhooks,
            assets=assets,
            jobs=JobService(
                database,
                acceptance=Acceptance(registry, webhooks, settings.jobs),
                catalog=registry.catalog,
                recorder=recorder,
                assets=assets,
                events=events,
                webhooks=webhooks,
                forecast=Forecast(registry, times),
                bell=bell,
            ),
            callbacks=CallbackService(database, registry, urls, bell, watch_for=settings.jobs.watch_for),
            times=times,
            bench=bench,
            steps=Steps(
                Submitter(bench),
                Resolver(bench),
                Poller(bench, times),
                Storer(bench, assets, settings.assets),
                Watcher(bench, assets, settings.assets),
            ),
            deliverer=Deliverer(database, guarded, webhooks, settings.webhooks),
            retention=Retention(database, settings),
        )
