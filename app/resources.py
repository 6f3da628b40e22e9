"""The object graph of a process, built once: the same for the API and the worker."""

import gc
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from app.accounts.auth import Authenticator
from app.assets.service import AssetService
from app.connection_settings import CREDENTIAL, callback_variable, credential_variable
from app.events.service import EventService
from app.files.service import FileService
from app.files.urls import FileUrls
from app.infra.db import Database
from app.infra.egress import GuardedClient
from app.infra.encryption import Encryptor
from app.infra.queue import Bell, Redis, open_redis
from app.jobs.api.acceptance import Acceptance
from app.jobs.api.callbacks import CallbackService
from app.jobs.api.forecast import Forecast
from app.jobs.api.inputs import Inputs
from app.jobs.api.service import JobService
from app.jobs.callback_urls import CallbackUrls
from app.jobs.db import file_uses
from app.jobs.db.render_times import RenderTimes
from app.jobs.engine.admission import Admission
from app.jobs.engine.context import EngineContext
from app.jobs.engine.fetcher import Fetcher
from app.jobs.engine.finder import Finder
from app.jobs.engine.inputs import SentInputs
from app.jobs.engine.poller import Poller
from app.jobs.engine.preparer import Preparer
from app.jobs.engine.reconciler import Reconciler
from app.jobs.engine.render_results import RenderResults
from app.jobs.engine.resolver import Resolver
from app.jobs.engine.storer import Storer
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.engine.submitter import Submitter
from app.jobs.transitions import Transitions
from app.media.storage import Storage
from app.providers.http_clients import Clients
from app.providers.registry import Registry
from app.retention import Retention
from app.settings import Settings
from app.webhooks.delivery import Deliverer
from app.webhooks.service import WebhookService

SIGNED_URLS = "signed asset URLs"
CALLBACK_URLS = "callback URLs"
INPUT_URLS = "input URLs"
#: API requests wait this long for a row that another process has locked; then the response is a 503.
LONGEST_LOCK_SECONDS = 1

log = structlog.get_logger()


def warn_unused_credentials(settings: Settings) -> None:
    """Log the credential variables of connections that are not configured: a name may be misspelt."""
    known = {variable(name) for name in settings.connections for variable in (credential_variable, callback_variable)}
    if unused := sorted(name for name in os.environ if CREDENTIAL.fullmatch(name) and name not in known):
        log.warning("credentials of no connection; check the names", variables=unused)


def freeze_gc() -> None:
    """Exclude objects loaded at start-up from garbage collection: full collections paused the API for about 100 ms.

    Requests leave few reference cycles, so rare collections of the other objects are enough.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


class Steps(NamedTuple):
    """The steps of a worker, one for each lane."""

    preparer: Preparer
    submitter: Submitter
    resolver: Resolver
    poller: Poller
    storer: Storer
    reconciler: Reconciler
    deliverer: Deliverer


@dataclass(frozen=True, slots=True)
class Resources:
    """The clients of a process and the services built on them. Built once, by :meth:`open`."""

    settings: Settings
    database: Database
    redis: Redis
    registry: Registry
    auth: Authenticator
    events: EventService
    webhooks: WebhookService
    assets: AssetService
    files: FileService
    jobs: JobService
    callbacks: CallbackService
    render_times: RenderTimes
    engine: EngineContext
    steps: Steps
    retention: Retention

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, bell: Bell, *, process: str) -> AsyncIterator["Resources"]:
        """Build the object graph. Connections are made on first use.

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
            proxy = settings.egress.proxy.get_secret_value() if settings.egress.proxy else None
            clients = Clients(connections=settings.worker.polls + settings.worker.stores, proxy=proxy)
            stack.push_async_callback(clients.close)
            guarded = GuardedClient(settings.webhooks, proxy=proxy)
            stack.push_async_callback(guarded.close)
            resources = cls._build(settings, bell, database=database, redis=redis, clients=clients, guarded=guarded)
            stack.callback(resources.assets.close)
            stack.callback(resources.files.close)
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
        encryptor = Encryptor.of(settings)
        public_url = str(settings.api.public_url) if settings.api.public_url else None
        registry = Registry.open(settings, clients)
        storage = Storage.open(settings.assets)
        events = EventService(database)
        webhooks = WebhookService(database, encryptor, settings.webhooks)
        assets = AssetService(
            database,
            storage,
            settings.assets,
            url_keys=encryptor.signing_keys(SIGNED_URLS),
            public_url=public_url,
        )
        transitions = Transitions(database, webhooks, bell)
        callback_urls = CallbackUrls(encryptor.signing_keys(CALLBACK_URLS), public_url)
        render_times = RenderTimes(database)
        deliverer = Deliverer(database, guarded, webhooks, settings.webhooks, limit=settings.worker.deliveries)
        files = FileService(
            database,
            storage,
            settings.files,
            settings.assets,
            guarded,
            used=file_uses.used,
            urls=FileUrls(encryptor.signing_keys(INPUT_URLS), public_url),
            public_url=public_url,
        )
        engine = EngineContext(
            database, registry, transitions, settings.jobs, settings.worker.lease, callback_urls, SentInputs(files)
        )
        return cls(
            settings=settings,
            database=database,
            redis=redis,
            registry=registry,
            auth=Authenticator(database),
            events=events,
            webhooks=webhooks,
            assets=assets,
            files=files,
            jobs=JobService(
                database,
                acceptance=Acceptance(registry, webhooks, settings.jobs),
                inputs=Inputs(database, files),
                catalog=registry.catalog,
                transitions=transitions,
                assets=assets,
                events=events,
                webhooks=webhooks,
                forecast=Forecast(registry, render_times),
                max_live=settings.jobs.max_live_per_account,
            ),
            callbacks=CallbackService(transitions, registry, callback_urls, reconcile_for=settings.jobs.watch_for),
            render_times=render_times,
            engine=engine,
            steps=cls._steps(
                settings, engine, files=files, assets=assets, render_times=render_times, deliverer=deliverer
            ),
            retention=Retention(database, settings),
        )

    @classmethod
    def _steps(
        cls,
        settings: Settings,
        engine: EngineContext,
        *,
        files: FileService,
        assets: AssetService,
        render_times: RenderTimes,
        deliverer: Deliverer,
    ) -> Steps:
        limits = settings.worker
        finder, fetcher = Finder(engine), Fetcher(engine, assets)
        submit_results, render_results = SubmitResults(engine), RenderResults(engine)
        admission = Admission(engine, submit_results)
        fetch_tries = settings.assets.fetch_tries
        return Steps(
            Preparer(engine, files, assets, engine.inputs, limit=limits.preparations),
            Submitter(engine, admission, submit_results, limit=limits.submissions),
            Resolver(engine, finder, submit_results, limit=limits.submissions),
            Poller(engine, render_results, render_times, limit=limits.polls),
            Storer(engine, fetcher, render_results, assets, fetch_tries=fetch_tries, limit=limits.stores),
            Reconciler(engine, finder, fetcher, submit_results, assets, fetch_tries=fetch_tries, limit=limits.stores),
            deliverer,
        )
