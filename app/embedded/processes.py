"""Child processes that log to a file, are stopped by a signal and then SIGKILL, and end with this process."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from app.embedded import launch
from app.terminal import CommandError

LOCALHOST = "127.0.0.1"
FREE_PORTS = range(20_000, 32_000)
PROBE_INTERVAL = 0.02
PROBE_TIMEOUT = 5
LOG_LINES = 20


class StartFailed(CommandError):
    """A process ended or did not become ready in time. The message includes the end of its log."""


class PortUnusable(StartFailed):
    """The port is in use, or this user may not listen on it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user id that a child runs as; only root can change it. ``None`` is the current user.

    ``reach`` allows traversing directories that this user may not enter: see :mod:`app.embedded.launch`.
    """

    user: int | None = None
    reach: bool = False


CURRENT_USER = Identity()


class Process:
    """A running child in its own session, so that Ctrl-C in a terminal does not reach it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._log_start = log_start

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        identity: Identity = CURRENT_USER,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> "Process":
        """Start ``command`` (an absolute path first) in ``environment`` (default: inherited); output goes to ``log``.

        ``death_signal`` is sent to the child when this process dies without stopping it (Linux only; elsewhere the
        child keeps running until :func:`stop_leftovers` finds it at the next start).
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *_launcher(identity, death_signal),
                *(str(part) for part in command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        return cls(name, process, log, start)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code."""
        return await self._process.wait()

    async def ready(self, probe: Callable[[], Awaitable[bool]], timeout: float) -> None:
        """Wait until ``probe`` returns true.

        Raises:
            StartFailed: the process ended, or was not ready within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await probe():
                    if not self.running:
                        raise StartFailed(f"{self.name} ended with exit code {await self.wait()}.{self.log_tail()}")
                    await asyncio.sleep(PROBE_INTERVAL)
        except TimeoutError:
            raise StartFailed(f"{self.name} was not ready within {timeout:g} s.{self.log_tail()}") from None

    async def responds(self, url: str, timeout: float) -> None:
        """:meth:`ready` with a successful GET of ``url`` as the probe."""

        async def probe() -> bool:
            try:
                async with session.get(url) as response:
                    return response.ok
            except (aiohttp.ClientError, TimeoutError):
                return False

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT)) as session:
            await self.ready(probe, timeout)

    def log_tail(self) -> str:
        """The last lines that this run has logged, and the path of the log."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        shown = "".join(f"\n  {line}" for line in lines[-LOG_LINES:])
        return f" Its log, {self._log}, ends with:{shown}" if shown else f" Its log, {self._log}, is empty."

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process is still running."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, request: signal.Signals = signal.SIGTERM, *, patience: float = 10) -> None:
        """Send ``request``, and SIGKILL after ``patience`` seconds. Returns when the process has ended. Idempotent."""
        self.send(request)
        try:
            async with asyncio.timeout(patience):
                await self.wait()
        except TimeoutError:
            await self.kill()
        except asyncio.CancelledError:  # a second Ctrl-C kills at once
            self.send(signal.SIGKILL)
            raise

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.send(signal.SIGKILL)
        await self.wait()


def _launcher(identity: Identity, death_signal: signal.Signals) -> list[str]:
    user = "-" if identity.user is None else str(identity.user)
    reach = "reach" if identity.reach else "-"
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(death_signal)), user, reach]


def stop_leftovers(name: str, directory: Path, request: signal.Signals, *, patience: float = 10) -> int:
    """Stop processes called ``name`` that a killed run left behind in ``directory``. Returns their number.

    They are identified by working directory: a pid from a file may belong to another process after a crash.
    """
    found = [process for process in psutil.process_iter(["name"]) if _is(process, name, directory)]
    pids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                process.send_signal(request)
    _, alive = psutil.wait_procs(found, timeout=patience)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=patience)
    return len(found)


def _is(process: psutil.Process, name: str, directory: Path) -> bool:
    try:
        return process.info["name"] == name and Path(process.cwd()) == directory.resolve()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def free_port() -> int:
    """An unused port outside the range that the system uses for outgoing connections."""
    while True:
        port = random.choice(FREE_PORTS)  # noqa: S311  # not for secrets
        with suppress(PortUnusable):
            require_free(port)
            return port


def require_free(port: int) -> None:
    """
    Raises:
        PortUnusable: the port is in use, or this user may not listen on it.
    """
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOCALHOST, port))
        except PermissionError:
            raise PortUnusable(f"port {port} on {LOCALHOST} is not open to this user") from None
        except OSError:
            raise PortUnusable(f"port {port} on {LOCALHOST} is in use") from None
