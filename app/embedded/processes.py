"""Child processes: they write to a log file, they are asked to stop and then made to, and they die with us."""

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
ANSWER_SECONDS = 5
LOG_LINES = 20


class StartFailed(CommandError):
    """A process ended or stayed silent when it should have been ready. The message ends with its last words."""


class PortUnusable(StartFailed):
    """Somebody else listens there, or we may not."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; for a parent that is root. ``None`` is whoever we are.

    ``reach`` lets it pass through directories that this user may not enter: see :mod:`app.embedded.launch`.
    """

    user: int | None = None
    reach: bool = False


OURSELVES = Identity()


class Process:
    """A running child in a session of its own, so that a terminal's Ctrl-C reaches only us."""

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
        identity: Identity = OURSELVES,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> "Process":
        """Start ``command`` (absolute path first) in ``environment`` (ours by default); ``log`` gets what it writes.

        ``death_signal`` is what the child gets when this process dies without stopping it (Linux; elsewhere it is left
        running, and :func:`stop_leftovers` finds it the next time).
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
        """The exit code, once there is one."""
        return await self._process.wait()

    async def ready(self, probe: Callable[[], Awaitable[bool]], timeout: float) -> None:
        """Return as soon as ``probe`` says yes.

        Raises:
            StartFailed: the process ended, or ``timeout`` seconds are over.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await probe():
                    if not self.running:
                        raise StartFailed(f"{self.name} ended with exit code {await self.wait()}.{self.last_words()}")
                    await asyncio.sleep(PROBE_INTERVAL)
        except TimeoutError:
            raise StartFailed(f"{self.name} was not ready within {timeout:g} s.{self.last_words()}") from None

    async def answers(self, url: str, timeout: float) -> None:
        """:meth:`ready`, as soon as a GET of ``url`` succeeds."""

        async def probe() -> bool:
            try:
                async with session.get(url) as response:
                    return response.ok
            except (aiohttp.ClientError, TimeoutError):
                return False

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
            await self.ready(probe, timeout)

    def last_words(self) -> str:
        """The end of what this run has logged, and where the rest is."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        shown = "".join(f"\n  {line}" for line in lines[-LOG_LINES:])
        return f" Its log, {self._log}, ends with:{shown}" if shown else f" Its log, {self._log}, is empty."

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there to get one."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, request: signal.Signals = signal.SIGTERM, *, patience: float = 10) -> None:
        """Ask with ``request``; after ``patience`` seconds, kill. Returns when it is gone; may be called twice."""
        self.send(request)
        try:
            async with asyncio.timeout(patience):
                await self.wait()
        except TimeoutError:
            await self.kill()
        except asyncio.CancelledError:  # a second Ctrl-C: no more patience
            self.send(signal.SIGKILL)
            raise

    async def kill(self) -> None:
        """SIGKILL, now."""
        self.send(signal.SIGKILL)
        await self.wait()


def _launcher(identity: Identity, death_signal: signal.Signals) -> list[str]:
    user = "-" if identity.user is None else str(identity.user)
    reach = "reach" if identity.reach else "-"
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(death_signal)), user, reach]


def stop_leftovers(name: str, directory: Path, request: signal.Signals, *, patience: float = 10) -> int:
    """Stop programs called ``name`` that work in ``directory``: orphans of a run that was killed. Returns how many.

    The working directory is the proof. A pid from a file is none: after a crash it may be anybody's.
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
    """A port that nobody listens on now, and that the system does not hand out for outgoing connections."""
    while True:
        port = random.choice(FREE_PORTS)  # noqa: S311  # not for secrets
        with suppress(PortUnusable):
            require_free(port)
            return port


def require_free(port: int) -> None:
    """
    Raises:
        PortUnusable: somebody listens on it, or we may not.
    """
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOCALHOST, port))
        except PermissionError:
            raise PortUnusable(f"port {port} on {LOCALHOST} is not open to this user") from None
        except OSError:
            raise PortUnusable(f"port {port} on {LOCALHOST} is in use") from None
