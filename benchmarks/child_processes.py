"""Child processes of the harness, controlled by lines of JSON on standard input and output."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import psutil

from benchmarks.load_generator import Count, Plan

LONGEST_LINE = 256 * 1024 * 1024


class WindowInvalid(Exception):
    """A request failed, which invalidates the window and the run."""


class Peer:
    """One such child. It ends when its standard input closes, thus with its parent."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @classmethod
    @asynccontextmanager
    async def running(cls, module: str, *arguments: str) -> AsyncIterator["Peer"]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"benchmarks.{module}", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        try:
            yield cls(process, module)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    async def ask(self, command: Mapping[str, Any]) -> Any:
        """Send a command and wait for its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.read()

    async def read(self) -> Any:
        """Wait for one line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self._name} ended with {await self._process.wait()}")
        return json.loads(line)


class Generator:
    """Runs the load generator in a child process."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["Generator"]:
        async with Peer.running("load_generator") as peer:
            yield cls(peer)

    async def run(self, plan: Plan) -> Count:
        """Run one window.

        Raises:
            WindowInvalid: a request failed.
        """
        counted = Count(**await self._peer.ask(asdict(plan)))
        if counted.failure is not None:
            raise WindowInvalid(f"{plan.method} {plan.targets[0]}, c = {plan.callers}: {counted.failure}")
        return counted
