"""Children that are told, paused and killed."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.faults import child
from tests.faults.child import Program, Trap
from tests.support import forks


class Child:
    """One process of ours: API, worker or sandbox.

    ``snapped`` is set when it stepped into its trap, ``over`` when it is gone; then ``code`` is its exit code, negative
    for a signal.
    """

    def __init__(self, program: Program, log: Path, trap: Trap | None = None) -> None:
        self.name = program.name
        self.log = log
        self.code: int | None = None
        self._killed = False
        self.snapped = asyncio.Event()
        self.over = asyncio.Event()
        self._reader, writer = forks.context.Pipe(duplex=False)
        self._process = forks.context.Process(target=child.run, args=(program, trap, writer, log), name=program.name)
        self._process.start()
        writer.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader.fileno(), self._hear)
        self._loop.add_reader(self._process.sentinel, self._end)

    @property
    def ended_badly(self) -> bool:
        """Whether it is gone, and neither by a fault of ours nor as it was told to."""
        ours = self.code == -signal.SIGKILL and (self._killed or self.snapped.is_set())
        # SIGTERM comes before anybody listens, or again from uvicorn's hand when everything is closed.
        return self.over.is_set() and not ours and self.code not in {0, -signal.SIGTERM}

    def send(self, number: signal.Signals) -> None:
        """A signal, if it is still there to get one."""
        if not self.over.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send_stop(self) -> None:
        """SIGTERM, also for one that is paused."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, now."""
        self._killed = True
        self.send(signal.SIGKILL)
        await self.over.wait()

    async def stop(self, patience: float = 10) -> None:
        """SIGTERM, and SIGKILL when it does not hear."""
        self.send_stop()
        try:
            async with asyncio.timeout(patience):
                await self.over.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.over.wait()

    def _hear(self) -> None:
        """The trap has snapped, or the process is gone."""
        self._loop.remove_reader(self._reader.fileno())
        with suppress(EOFError, OSError):
            if self._reader.poll() and self._reader.recv_bytes():
                self.snapped.set()

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        if not self.snapped.is_set():
            self._hear()
        self._reader.close()
        self.code = self._process.exitcode
        self._process.close()
        self.over.set()
