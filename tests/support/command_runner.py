"""Runs ``filmgate`` as a person would: as a process of its own."""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.main import app
from tests.support import forks

TIMEOUT = 300
COMMAND = (sys.executable, "-P", "-m", "app.cli")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


async def start(
    *arguments: str, directory: Path, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start a command in a directory, with no setting but those given."""
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=directory,
        env={**_inherited(), **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for the end of a command."""
    async with asyncio.timeout(TIMEOUT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def filmgate(*arguments: str, directory: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, in a fork."""
    with TemporaryDirectory() as printed:
        out, err = Path(printed) / "out", Path(printed) / "err"
        process = forks.context.Process(
            target=_run, args=(arguments, directory, {**_inherited(), **(environment or {})}, out, err)
        )
        process.start()
        await asyncio.to_thread(process.join, TIMEOUT)
        assert process.exitcode is not None, f"filmgate {shlex.join(arguments)} did not end"
        return Ended(process.exitcode, out.read_text(), err.read_text())


def _run(arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["filmgate", *arguments]
    app()


async def shell(line: str, *, directory: Path) -> Ended:
    """Run a line that a command printed for its user to paste."""
    process = await asyncio.create_subprocess_shell(
        line.replace(" filmgate ", f" {shlex.join(COMMAND)} "),
        cwd=directory,
        env=_inherited(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await ended(process)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FILMGATE_")}


async def line_with(process: asyncio.subprocess.Process, words: str, *, progress: bool = False) -> str:
    """Read what a running command prints up to the line that has ``words``: a result, or progress on standard error."""
    stream = process.stderr if progress else process.stdout
    assert stream is not None
    seen = []
    async with asyncio.timeout(TIMEOUT):
        while line := (await stream.readline()).decode():
            seen.append(line)
            if words in line:
                return line
    raise AssertionError(f"{words!r} never came; it printed:\n{''.join(seen)}")
