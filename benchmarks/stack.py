"""The gateway under test as real processes: one Postgres, one Valkey, one sandbox, and sites.

A site is one gateway: a database with its API and worker processes. Its code may be from another commit, so it is not
imported here: it is migrated, given a key and started through its own command line.
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import asyncpg
import psutil

from app.embedded.processes import LOCALHOST, Process, free_port
from app.embedded.servers import Postgres, Valkey

ROOT = Path(__file__).parents[1]
TEMPLATE = Path(__file__).with_name("filmgate.toml.template")
ACCOUNT = "bench"
#: Those that older code knows, too.
SCOPES = ("jobs:read", "jobs:write", "assets:read", "metrics:read")
SANDBOX_KEY = "sandbox-key"
CONNECTIONS = ("INSTANT", "SECOND", "ENDLESS", "LARGE", "CALLING")
READY_SECONDS = 60
STOP_SECONDS = 15


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary directory that other users may enter: under root, Postgres runs as another user."""
    with tempfile.TemporaryDirectory(prefix="filmgate-bench-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@dataclass(frozen=True, slots=True)
class Code:
    """A checkout and an interpreter with its dependencies."""

    root: Path = ROOT
    python: Path = Path(sys.executable)

    def command(self, *arguments: str) -> list[str | Path]:
        return [self.python, "-P", "-m", "app.cli", *arguments]

    @property
    def path(self) -> dict[str, str]:
        """The environment variable that makes this checkout take precedence over the installed one."""
        return {"PYTHONPATH": str(self.root)}


class Part:
    """One process of a site or of the harness."""

    def __init__(
        self,
        name: str,
        command: list[str | Path],
        port: int,
        probe: str,
        *,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.port = port
        self._command = command
        self._probe = f"http://{LOCALHOST}:{port}{probe}"
        self._log = log
        self._environment = environment
        self._process: Process | None = None

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None, f"{self.name} is not started"
        return psutil.Process(self._process.pid)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    async def start(self) -> float:
        """Start the process; returns the seconds until it was ready."""
        began = time.perf_counter()
        self._process = await Process.start(
            self.name, self._command, log=self._log, environment=self._environment, directory=self._log.parent
        )
        await self._process.responds(self._probe, READY_SECONDS)
        return time.perf_counter() - began

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(patience=STOP_SECONDS)


class Site:
    """One gateway. Use :meth:`Stack.site`."""

    def __init__(self, stack: "Stack", code: Code, name: str, number: int) -> None:
        self.name = name
        self._stack = stack
        self.code = code
        self._home = stack.directory / name
        self.url = stack.postgres.url_of(name)
        self.redis_url = f"redis://{LOCALHOST}:{stack.valkey.port}/{number}"
        self.key = ""
        self.api = self.another_api()
        self.worker = self.another_worker()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def prepare(self) -> None:
        """Create the database, the configuration and an API key."""
        self._home.mkdir(parents=True)
        await self._stack.postgres.create_database(self.name)
        values = {
            "database_url": json.dumps(self.url),
            "redis_url": json.dumps(self.redis_url),
            "store": json.dumps((self._home / "assets").as_uri()),
            "spool": json.dumps(str(self._home / "spool")),
            "sandbox": self._stack.sandbox.port,
            "upstream": self._stack.upstream_port,
        }
        (self._home / "spool").mkdir()
        (self._home / "filmgate.toml").write_text(Template(TEMPLATE.read_text()).substitute(values))
        await self.command("migrate")
        self.key = await self.another_key(ACCOUNT)

    async def another_key(self, account: str, scopes: Sequence[str] = SCOPES) -> str:
        """A key of this account, with the scopes that a client needs."""
        options = [option for scope in scopes for option in ("--scope", scope)]
        output = await self.command("keys", "create", "--account", account, "--name", "bench", *options)
        return output.split("key:", 1)[1].split()[0]

    async def command(self, *arguments: str) -> str:
        """Run ``filmgate …`` of this site; returns its output."""
        process = await asyncio.create_subprocess_exec(
            *self.code.command(*arguments),
            env=self._environment(),
            cwd=self._home,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"filmgate {' '.join(arguments)} failed:\n{output.decode()}")
        return output.decode()

    def another_api(self, **settings: str) -> Part:
        """An API process of this site, not started; ``settings`` are further ``FILMGATE_…`` variables."""
        return self._part("api", "/readyz", settings)

    def another_worker(self, **settings: str) -> Part:
        return self._part("worker", "/readyz", settings)

    def _part(self, name: str, probe: str, settings: Mapping[str, str]) -> Part:
        port = free_port()
        environment = {f"FILMGATE_{name.upper()}_PORT": str(port), **settings}
        if name == "api":
            environment["FILMGATE_API_PUBLIC_URL"] = f"http://{LOCALHOST}:{port}"
            self._stack.public_urls.setdefault(self.name, environment["FILMGATE_API_PUBLIC_URL"])
        else:  # callbacks go to the first API
            environment["FILMGATE_API_PUBLIC_URL"] = self._stack.public_urls[self.name]
        log = self._home / f"{name}-{port}.log"
        settings = {**self._environment(), **environment}
        return Part(name, self.code.command(name), port, probe, log=log, environment=settings)

    def _environment(self) -> dict[str, str]:
        level = os.environ.get("BENCH_LOG_LEVEL")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("FILMGATE_")},
            **self.code.path,
            **({"FILMGATE_LOG_LEVEL": level} if level else {}),
            "PYTHONUNBUFFERED": "1",
            "FILMGATE_CONFIG": str(self._home / "filmgate.toml"),
            "FILMGATE_SECRET_KEY": self._stack.secret,
            **{f"FILMGATE_CONNECTION_{name}_API_KEY": SANDBOX_KEY for name in CONNECTIONS},
        }

    async def connect(self) -> asyncpg.Connection:
        """Connect as the superuser."""
        return await asyncpg.connect(self.url, timeout=READY_SECONDS, command_timeout=None)


class Stack:
    """The servers shared by all sites. ``upstream_port`` is the port of the fake upstream."""

    def __init__(self, directory: Path, upstream_port: int) -> None:
        self.directory = directory
        self.upstream_port = upstream_port
        self.secret = "dev-" + secrets.token_urlsafe(48)
        self.public_urls: dict[str, str] = {}
        self.postgres = Postgres(directory / "postgres")
        self.valkey = Valkey(directory / "valkey")
        port = free_port()
        here = Code()
        self.sandbox = Part(
            "sandbox",
            here.command("sandbox", "--port", str(port), "--no-render"),
            port,
            "/healthz",
            log=directory / "sandbox.log",
            environment={**os.environ, **here.path},
        )
        self._sites = 0
        self._exit = AsyncExitStack()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stack"]:
        """Start the servers. :meth:`site` adds sites. Everything is stopped at the end of the block."""
        async with self._exit:
            for part in (self.postgres, self.valkey, self.sandbox):
                self._exit.push_async_callback(part.stop)
                await part.start()
            yield self

    async def site(self, name: str, code: Code | None = None) -> Site:
        """Create a site with an empty database. Its API and worker are not started, but are stopped at the end."""
        site = Site(self, code or Code(), name, self._sites)
        self._sites += 1
        await site.prepare()
        for part in (site.api, site.worker):
            self._exit.push_async_callback(part.stop)
        return site
