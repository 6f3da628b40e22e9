"""Runs and prints for CLI commands: plain lines, exit codes, no traceback for expected errors."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import typer
from rich.console import Console

from app.printable import one_line, printable

#: What other programs read: the id of a job, the path of a video, an API key.
RESULTS = Console()
#: Progress and advice. Errors go to standard error too.
MESSAGES = Console(stderr=True)


class CommandError(Exception):
    """Ends a command with an error and the exit code ``code``. The message is printed for the user."""

    code: ClassVar[int] = 1


class UsageError(CommandError):
    """The command was called in a way that cannot work, whatever the state of the gateway."""

    code = 2


def program() -> str:
    """The name or path of the running program, for commands to paste: ``filmgate`` may not be on the PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "filmgate" else "filmgate"


def not_installed(package: str) -> str:
    """What is missing, and how to get it. The package index has nothing of ours to name: it comes from a checkout."""
    return (
        f"{package} is not installed: it is one of the development packages; "
        'to install them, run in a checkout of the repository: pip install -e ".[dev]" (`make demo` makes a new .venv)'
    )


def say(console: Console, *lines: str) -> None:
    """Print lines literally: no markup, colours or wrapping, and with control characters replaced."""
    console.print(*map(one_line, lines), sep="\n", markup=False, highlight=False, soft_wrap=True)


def fail(message: object, code: int = 1) -> NoReturn:
    """Print a message on stderr and exit."""
    typer.echo(printable(str(message)), err=True)
    raise typer.Exit(code)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run the body of a command. Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up."""
    received: list[signal.Signals] = []
    try:
        asyncio.run(_cancelable(work, received))
    except CommandError as error:
        fail(error, error.code)
    except asyncio.CancelledError:
        raise typer.Exit(128 + received[0]) from None


async def _cancelable(work: Coroutine[Any, Any, None], received: list[signal.Signals]) -> None:
    task = asyncio.current_task()
    assert task is not None

    def cancel(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Respect `nohup`, which ignores SIGHUP. SIGINT is handled even if ignored: shells ignore it for `&` jobs, where
        # `kill -INT` should still work.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, cancel, number)
    await work
