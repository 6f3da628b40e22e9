"""The whole gateway on one machine: Postgres, Valkey, sandbox, API and worker as child processes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NoReturn, TypeVar

from app.accounts.service import KeyService
from app.client import Client
from app.connection_settings import credential_variable
from app.database_settings import DatabaseSettings
from app.embedded.processes import LOCALHOST, Process
from app.embedded.servers import Postgres, Valkey
from app.embedded.workspace import Ports, Workspace
from app.infra import migrate
from app.infra.db import Database
from app.settings_loader import CONFIG_VARIABLE
from app.terminal import CommandError

READY_TIMEOUT = 120
STOP_TIMEOUT = 10  # longer than the shutdown_grace of worker and API in the template
SANDBOX_KEY = "sandbox-key"
ACCOUNT = "dev"
Result = TypeVar("Result")


class PartEnded(CommandError):
    """A process of the running stack ended unexpectedly. The message includes the end of its log."""


class Part:
    """One process of the gateway: ``filmgate <command>``."""

    def __init__(self, name: str, arguments: Sequence[str], port: int, probe: str, workspace: Workspace) -> None:
        self.name = name
        self._command = [sys.executable, "-P", "-m", "app.cli", name, *arguments]
        self._probe = f"http://{LOCALHOST}:{port}{probe}"
        self._workspace = workspace
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} is not started"
        return self._process

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            StartFailed: the process ended, or was not ready in time.
        """
        self._process = await Process.start(
            self.name,
            self._command,
            log=self._workspace.log(self.name),
            environment=_environment(self._workspace),
        )
        await self._process.responds(self._probe, READY_TIMEOUT)

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(patience=STOP_TIMEOUT)


class Stack:
    """One stack in one workspace. :meth:`running` starts it and always stops all of it when the block ends."""

    def __init__(self, workspace: Workspace, ports: Ports) -> None:
        self.workspace = workspace
        self.ports = ports
        self.started = False  # set once there may be processes to stop
        self.url = f"http://{LOCALHOST}:{ports.api}"
        self.postgres = Postgres(workspace.root / "postgres", port=ports.postgres, log=workspace.log("postgres"))
        self.valkey = Valkey(workspace.root / "valkey", port=ports.valkey, log=workspace.log("valkey"))
        videos = ("--data-dir", str(workspace.root / "sandbox"))
        self.sandbox = Part("sandbox", ("--port", str(ports.sandbox), *videos), ports.sandbox, "/healthz", workspace)
        self.api = Part("api", (), ports.api, "/readyz", workspace)
        self.worker = Part("worker", (), ports.worker, "/readyz", workspace)

    @asynccontextmanager
    async def running(self, announce: Callable[[str], None]) -> AsyncIterator[None]:
        """Start everything; ``announce`` receives progress messages.

        Raises:
            AlreadyRunning, PortUnusable, StartFailed, MigrationFailed: no process is left running.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self.workspace.locked())
            self.workspace.rotate_logs()
            await self.postgres.stop_leftovers()
            await self.valkey.stop_leftovers()
            self.ports.require_free()
            self.started = True
            # Stopped in reverse order. Stopping a part that never started does nothing.
            for part in (self.postgres, self.valkey, self.sandbox, self.api, self.worker):
                stack.push_async_callback(part.stop)
            announce("Starting Postgres, Valkey and the sandbox")
            await _all(self.postgres.start(), self.valkey.start(), self.sandbox.start())
            announce("Migrating the database")
            await self._migrate()
            self.workspace.configure(self.ports, database_url=self.postgres.url, redis_url=self.valkey.url)
            announce("Starting API and worker")
            await _all(self.api.start(), self.worker.start())
            yield

    async def _migrate(self) -> None:
        await migrate.upgrade(self.postgres.url)
        if differences := await migrate.check(self.postgres.url):
            advice = f"Remove {self.postgres.home} to start with an empty one."
            raise migrate.MigrationFailed(
                f"the database was made by another version of filmgate: {differences[0]}\n{advice}"
            )

    async def watch(self) -> NoReturn:
        """Wait until a process of the stack ends.

        Raises:
            PartEnded: a process ended unexpectedly.
        """
        processes = [part.process for part in (self.postgres, self.valkey, self.sandbox, self.api, self.worker)]
        tasks = {asyncio.create_task(process.wait()): process for process in processes}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = next(process for task, process in tasks.items() if task.done())
            raise PartEnded(f"{ended.name} ended with exit code {await ended.wait()}.{ended.log_tail()}")
        finally:
            for task in tasks:
                task.cancel()

    async def guard(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run ``work``; cancel it if a process of the stack ends meanwhile.

        Raises:
            PartEnded: a process ended before ``work`` was done.
        """
        working, watching = asyncio.create_task(work), asyncio.create_task(self.watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else watching.result()
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def api_key(self) -> str:
        """A valid API key: the stored one of an earlier run, or a new one."""
        kept = self.workspace.api_key()
        if kept:
            async with Client(self.url, kept) as client:
                if await client.accepts_key():
                    return kept
        database = Database.open(
            DatabaseSettings.model_validate({"url": self.postgres.url}), application="filmgate dev"
        )
        try:
            created = await KeyService(database).create(ACCOUNT, "development")
        finally:
            await database.close()
        return self.workspace.keep("key", created.text)


def _environment(workspace: Workspace) -> Mapping[str, str]:
    """The environment of the parts, without settings of another gateway in the user's shell."""
    ours = {name for name in os.environ if name.startswith("FILMGATE_") and not name.startswith("FILMGATE_LOG_")}
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "PYTHONUNBUFFERED": "1",
        CONFIG_VARIABLE: str(workspace.configuration),
        "FILMGATE_SECRET_KEY": workspace.secret(),
        credential_variable("sandbox"): SANDBOX_KEY,
        credential_variable("sandbox-runway"): SANDBOX_KEY,
        credential_variable("sandbox-kling"): SANDBOX_KEY,
    }


async def _all(*starts: Coroutine[Any, Any, None]) -> None:
    """Run concurrently; the first failure cancels the others and is raised unwrapped."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
