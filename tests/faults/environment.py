"""Everything that a run needs, started once: servers, proxies, a receiver, and our own processes, killed at will."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.accounts.scopes import Scope
from app.accounts.service import KeyService
from app.database_settings import DatabaseSettings
from app.embedded.processes import LOCALHOST, free_port
from app.embedded.servers import Postgres, Valkey
from app.infra import migrate
from app.infra.db import Database
from app.sandbox.settings import SandboxSettings
from app.settings import Settings
from tests.faults import child, fast_settings
from tests.faults.child import Program, Trap
from tests.faults.pictures import serving_pictures
from tests.faults.processes import Child
from tests.support.fault_proxy import CommitCutter, FaultProxy, Mode
from tests.support.receiver import Receiver, running_receiver

WORKERS = 2
ACCOUNTS = "first", "second"
STOP_PATIENCE = 15
START_SECONDS = 60
LOOK_AGAIN_SECONDS = 0.05


@dataclass
class Arena:
    """A gateway under attack. ``broken`` holds what should never have happened."""

    directory: Path
    settings: Settings
    postgres: Postgres
    valkey: Valkey
    database: CommitCutter
    upstream: FaultProxy
    receiver: Receiver
    pictures: str  # the URL of their server
    sandbox_url: str
    keys: tuple[str, ...]  # of two accounts
    api: Child
    workers: list[Child]
    broken: list[str] = field(default_factory=list)
    _leaving: set[Child] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.settings.api.port}"

    @property
    def store(self) -> Path:
        return self.directory / "assets"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be in the database: every key, ours at the provider and our customers'."""
        return (fast_settings.API_KEY, *self.keys)

    async def new_api(self, trap: Trap | None = None) -> Child:
        """An API in the place of the one that is there, or was: two cannot have one port."""
        await self._end(self.api)
        self.api = self._start(child.api(self.settings), trap)
        return self.api

    def new_worker(self, slot: int, trap: Trap | None = None) -> Child:
        """A worker in the place of one that is gone, or is told to go now."""
        old = self.workers[slot]
        self._leaving.add(old)
        old.send_stop()
        self.workers[slot] = self._start(child.worker_of(self.settings), trap)
        return self.workers[slot]

    async def calm(self) -> None:
        """All faults off: proxies let everything pass, our processes are fresh and without traps, the API answers."""
        self.database.spare()
        await self.database.switch(Mode.PASS)
        await self.upstream.switch(Mode.PASS)
        await self.new_api()
        for slot in range(WORKERS):
            self.new_worker(slot)
        while self._leaving:
            await self._end(self._leaving.pop())
        await self._listening()

    async def close(self) -> None:
        """Stop our processes, wherever they are."""
        await asyncio.gather(*(one.stop(STOP_PATIENCE) for one in (self.api, *self.workers, *self._leaving)))

    async def _end(self, old: Child) -> None:
        await old.stop(STOP_PATIENCE)
        if old.ended_badly:
            self.broken.append(f"{old.name} did not end well, with exit code {old.code}; see {old.log}")

    async def _listening(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while not self.api.over.is_set():
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(LOCALHOST, self.settings.api.port)
                    writer.close()
                    return
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        self.broken.append(f"the API ended as it started; see {self.api.log}")

    def _start(self, program: Program, trap: Trap | None) -> Child:
        return Child(program, self.directory / f"{program.name}.log", trap)


@asynccontextmanager
async def running_arena(directory: Path) -> AsyncIterator[Arena]:
    """All of it; nothing is left running however the block ends."""
    async with AsyncExitStack() as stack:
        postgres = Postgres(directory / "postgres", durable=False)
        valkey = Valkey(directory / "valkey")
        for server in (postgres, valkey):
            stack.push_async_callback(server.stop)
        sandbox_port = free_port()
        shelf = SandboxSettings(
            render=False,
            data_dir=directory / "videos",
            api_key=fast_settings.API_KEY,
            runway_concurrency=100,
            callback_secret=fast_settings.CALLBACK_SECRET,
            fingerprint=True,
            clocks=fast_settings.CLOCKS,
        )
        sandbox = Child(child.sandbox(shelf, sandbox_port), directory / "sandbox.log")
        stack.push_async_callback(sandbox.stop)
        await asyncio.gather(postgres.start(), valkey.start())
        await migrate.upgrade(postgres.url)
        database = await stack.enter_async_context(CommitCutter(postgres.port))
        upstream = await stack.enter_async_context(FaultProxy(sandbox_port))
        settings = fast_settings.settings(
            postgres_url=postgres.url.replace(f":{postgres.port}/", f":{database.port}/"),
            redis_url=valkey.url,
            sandbox_url=f"http://{LOCALHOST}:{upstream.port}",
            api_port=free_port(),
            directory=directory,
        )
        arena = Arena(
            directory=directory,
            settings=settings,
            postgres=postgres,
            valkey=valkey,
            database=database,
            upstream=upstream,
            receiver=await stack.enter_async_context(running_receiver()),
            pictures=await stack.enter_async_context(serving_pictures()),
            sandbox_url=f"http://{LOCALHOST}:{sandbox_port}",
            keys=await _keys(postgres.url),
            api=Child(child.api(settings), directory / "api.log"),
            workers=[Child(child.worker_of(settings), directory / "worker.log") for _ in range(WORKERS)],
        )
        stack.push_async_callback(arena.close)
        yield arena


async def _keys(postgres_url: str) -> tuple[str, ...]:
    """A key with every scope for each account."""
    database = Database.open(DatabaseSettings.model_validate({"url": postgres_url}), application="fault suite")
    try:
        service = KeyService(database)
        return tuple([(await service.create(name, "fault suite", set(Scope))).text for name in ACCOUNTS])
    finally:
        await database.close()
