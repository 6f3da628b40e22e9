"""What runs inside a child: the real process, and a trap that it may step into."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from app import failpoints
from app.api.main import serve as serve_api
from app.embedded.launch import PR_SET_PDEATHSIG
from app.embedded.processes import LOCALHOST
from app.failpoints import Failpoint
from app.sandbox.main import serve as serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.settings import Settings
from app.worker.main import serve as serve_worker
from tests.faults.fast_settings import hurry


@dataclass(frozen=True, slots=True)
class Trap:
    """At the ``passing``-th passing of ``place`` the process gets ``number`` from its own hand."""

    place: Failpoint
    passing: int = 1
    number: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Program:
    """What a child becomes."""

    name: str
    serve: Callable[[], None]


def api(settings: Settings) -> Program:
    return Program("api", partial(serve_api, settings))


def worker_of(settings: Settings) -> Program:
    return Program("worker", partial(serve_worker, settings))


def sandbox(settings: SandboxSettings, port: int) -> Program:
    return Program("sandbox", partial(serve_sandbox, settings, LOCALHOST, port))


class Walker:
    """Walks past every place, and into the trap; tells the parent so right before."""

    def __init__(self, trap: Trap, parent: Connection) -> None:
        self._trap = trap
        self._parent = parent
        self._left = trap.passing

    async def __call__(self, place: Failpoint) -> None:
        if place is self._trap.place:
            self._left -= 1
            if not self._left:
                self._parent.send_bytes(place.value.encode())
                os.kill(os.getpid(), self._trap.number)


def run(program: Program, trap: Trap | None, parent: Connection, log: Path) -> None:
    """The whole life of a child."""
    os.setsid()  # a terminal's Ctrl-C is for the parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    hurry()
    if trap is not None:
        failpoints.visit(Walker(trap, parent))
    program.serve()
